"""One line restores a model, from wherever it is."""

import sys

import fsspec
from fsspec.implementations import memory
import made_run
import main_job
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax import errors


@pytest.fixture(scope='module', name='expected')
def _expected(made_run_dir):
  return mtnet_jax.load(made_run_dir).predict(made_run.patches(3), 0.7)


def assert_same(prediction, expected, atol=1e-6):
  for name in ('probability', 'malignancy', 'cam'):
    np.testing.assert_allclose(
      getattr(prediction, name),
      getattr(expected, name),
      atol=atol,
      err_msg=name,
    )


def test_a_model_says_what_it_is(made_run_dir):
  model = mtnet_jax.load(made_run_dir)
  assert model.name == 'made'
  assert model.simulated is True
  assert model.config.image_size == 64
  assert model.metrics['test']['patients'] == 3
  assert 'SIMULATED' in repr(model)


def test_loading_changes_nothing_in_the_run(made_run_dir):
  def files():
    return {path: path.stat().st_mtime_ns for path in made_run_dir.rglob('*')}

  before = files()
  mtnet_jax.load(made_run_dir)
  assert files() == before


@pytest.fixture(name='upload')
def _upload():
  """Copies a folder to memory://NAME and takes it away afterwards."""
  filesystem = fsspec.filesystem('memory')
  names = []

  def upload(folder, name):
    names.append(name)
    filesystem.put(str(folder), f'/{name}', recursive=True)
    return filesystem

  yield upload
  for name in names:
    filesystem.rm(f'/{name}', recursive=True)


def test_from_a_url_only_what_is_needed_is_fetched(
  made_run_dir, expected, upload, monkeypatch
):
  filesystem = upload(made_run_dir, 'bucket/run')
  assert filesystem.find('/bucket/run/checkpoints/fine/latest')
  fetched = []
  original = filesystem.get_file

  def get_file(source, *args, **kwargs):
    fetched.append(source)
    return original(source, *args, **kwargs)

  monkeypatch.setattr(type(filesystem), 'get_file', staticmethod(get_file))
  model = mtnet_jax.load('memory://bucket/run')
  assert model.name == 'run'
  assert_same(model.predict(made_run.patches(3), 0.7), expected)
  assert any('/best/' in name for name in fetched)
  assert not any('/latest/' in name for name in fetched)


def test_a_bucket_of_google_storage(
  made_run_dir, expected, upload, monkeypatch
):
  """`gs://` goes to what fsspec has for it; here that is memory."""

  class Bucket(memory.MemoryFileSystem):
    protocol = 'gs'

    @classmethod
    def _strip_protocol(cls, path):
      return super()._strip_protocol(path.removeprefix('gs://'))

  registered = sys.modules['fsspec.registry']._registry
  monkeypatch.setitem(registered, 'gs', Bucket)
  upload(made_run_dir, 'bucket/run')
  model = mtnet_jax.load('gs://bucket/run/')
  assert model.name == 'run'
  assert_same(model.predict(made_run.patches(3), 0.7), expected)


@pytest.mark.parametrize(
  ('path', 'says'),
  [
    ('nowhere/run', 'nowhere/run does not exist'),
    (__file__, 'is a file, not a folder'),
    ('memory://bucket/none', 'memory://bucket/none'),
    ('nonsense://bucket/run', 'nonsense://bucket/run.*[Pp]rotocol'),
  ],
)
def test_where_nothing_is_one_line_says_so(path, says):
  with pytest.raises(errors.InputError, match=says):
    mtnet_jax.load(path)


def test_a_missing_filesystem_names_the_extra(monkeypatch):
  def missing(*args, **kwargs):
    raise ImportError('Please install gcsfs to access Google Storage')

  monkeypatch.setattr(fsspec.core, 'url_to_fs', missing)
  with pytest.raises(errors.InputError, match=r'gcsfs.*mtnet_jax\[gcs\]'):
    mtnet_jax.load('gs://bucket/run')


def test_an_unfinished_run_is_named_by_its_address(made_run_dir, upload):
  filesystem = upload(made_run_dir, 'bucket/half')
  filesystem.rm('/bucket/half/metrics.json')
  with pytest.raises(
    errors.InputError, match='memory://bucket/half is not fin'
  ):
    mtnet_jax.load('memory://bucket/half')


_CHILD = """
import sys
import mtnet_jax
assert 'jax' not in sys.modules, 'import mtnet_jax imports jax'
import numpy as np
model = mtnet_jax.load(sys.argv[1])
prediction = model.predict(np.load(sys.argv[2]), 0.7)
import jax
assert jax.device_count() == 1
np.savez(sys.argv[3], **vars(prediction))
print(*{'tfds_lidc', 'tensorflow_datasets', 'tensorflow', 'pylidc', 'sklearn',
        'pydicom'} & set(sys.modules))
"""


def test_one_process_needs_neither_the_dataset_nor_tensorflow(
  made_run_dir, expected, tmp_path
):
  np.save(tmp_path / 'hu.npy', made_run.patches(3))
  done = main_job.run(
    [
      sys.executable,
      '-c',
      _CHILD,
      str(made_run_dir),
      str(tmp_path / 'hu.npy'),
      str(tmp_path / 'out.npz'),
    ]
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert not done.stdout.strip()
  with np.load(tmp_path / 'out.npz') as arrays:
    for name in arrays:
      np.testing.assert_allclose(
        arrays[name].astype(float), getattr(expected, name), atol=1e-6
      )
