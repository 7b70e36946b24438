"""`mtnet_jax.load` loads models from runs, bundles and URLs."""

import hashlib
import json
import shutil
import sys

import fsspec
from fsspec.implementations import memory
import jax
import made_run
import main_job
import numpy as np
import pytest
import safetensors.numpy

import mtnet_jax
from mtnet_jax import bundle
from mtnet_jax.inference import packing
from mtnet_jax.system import errors


def assert_same(left, right):
  """Fails if weights, config or metrics of two models differ."""
  jax.tree.map(np.testing.assert_array_equal, left.variables, right.variables)
  assert left.config.to_dict() == right.config.to_dict()
  assert left.metrics == right.metrics


def test_a_model_has_the_attributes_of_its_run(made_model):
  model = made_model
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
  """Yields a function that copies a folder to memory://NAME, for one test."""
  filesystem = fsspec.filesystem('memory')
  names = []

  def upload(folder, name):
    names.append(name)
    filesystem.put(str(folder), f'/{name}', recursive=True)
    return filesystem

  yield upload
  for name in names:
    filesystem.rm(f'/{name}', recursive=True)


def test_from_a_url_only_what_is_needed_is_downloaded(
  made_run_dir, made_model, upload, monkeypatch
):
  filesystem = upload(made_run_dir, 'bucket/run')
  assert filesystem.find('/bucket/run/checkpoints/fine/latest')
  fetched = []
  original = filesystem.open

  def opened(source, *args, **kwargs):
    fetched.append(source)
    return original(source, *args, **kwargs)

  monkeypatch.setattr(type(filesystem), 'open', staticmethod(opened))
  model = mtnet_jax.load('memory://bucket/run')
  assert model.name == 'run'
  assert_same(model, made_model)
  assert any('/best/' in name for name in fetched)
  # The only file of the training state is the one that names the best epoch.
  latest = [name for name in fetched if '/latest/' in name]
  assert latest == ['/bucket/run/checkpoints/fine/latest/2/meta/metadata']


def test_a_bucket_of_google_storage(
  made_run_dir, made_model, upload, monkeypatch
):
  """A filesystem in memory stands in for the one that fsspec has for gs://."""

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
  assert_same(model, made_model)


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('nowhere/run', 'nowhere/run does not exist'),
    (__file__, 'is a file, not a folder'),
    ('memory://bucket/none', 'memory://bucket/none'),
    ('nonsense://bucket/run', 'nonsense://bucket/run.*[Pp]rotocol'),
  ],
)
def test_a_path_without_a_model_is_refused(path, message):
  with pytest.raises(errors.InputError, match=message):
    mtnet_jax.load(path)


def test_a_missing_filesystem_names_the_extra(monkeypatch):
  def missing(*args, **kwargs):
    raise ImportError('Please install gcsfs to access Google Storage')

  monkeypatch.setattr(fsspec.core, 'url_to_fs', missing)
  with pytest.raises(errors.InputError, match=r'gcsfs.*mtnet_jax\[gcs\]'):
    mtnet_jax.load('gs://bucket/run')


def test_an_unfinished_run_is_named_by_its_url(made_run_dir, upload):
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
  made_run_dir, made_model, tmp_path
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
  expected = made_model.predict(made_run.patches(3), 0.7)
  with np.load(tmp_path / 'out.npz') as arrays:
    assert len(arrays) == 5
    for name in arrays:
      np.testing.assert_allclose(
        arrays[name].astype(float), getattr(expected, name), atol=1e-6
      )


def test_a_bundle_equals_its_run(packed, made_model):
  model = mtnet_jax.load(packed)
  assert (model.name, model.simulated) == ('made', True)
  assert model.card == made_model.card
  assert (packed / 'README.md').read_text().endswith(f'---\n\n{model.card}')
  assert_same(model, made_model)


def test_a_bundle_holds_only_these_files(packed):
  assert {path.name for path in packed.iterdir()} == {
    'README.md',
    'config.json',
    'manifest.json',
    'metrics.json',
    'weights.safetensors',
  }
  # A file that is not in the manifest would not be checked.
  manifest = json.loads((packed / 'manifest.json').read_text())
  assert set(manifest['files']) | {'manifest.json'} == {
    path.name for path in packed.iterdir()
  }
  # All files have the same permissions.
  assert len({path.stat().st_mode for path in packed.iterdir()}) == 1
  # Other programs can read the weights, under the names of the variables.
  weights = safetensors.numpy.load_file(packed / 'weights.safetensors')
  assert weights['fine/params/fine_layer/conv/kernel'].shape == (1, 1, 5, 4)


def test_a_bundle_from_a_url(packed, upload, made_model):
  upload(packed, 'bucket/model')
  model = mtnet_jax.load('memory://bucket/model')
  assert_same(model, made_model)


def test_the_same_run_gives_the_same_bytes(packed, made_run_dir, tmp_path):
  packing.write(made_run_dir, tmp_path / 'again')
  for path in packed.iterdir():
    assert path.read_bytes() == (tmp_path / 'again' / path.name).read_bytes()


def test_the_path_of_the_data_is_removed(made_run_dir, tmp_path):
  run = shutil.copytree(made_run_dir, tmp_path / 'run')
  config = json.loads((run / 'config.json').read_text())
  config['dataset']['data_dir'] = '/home/private/data'
  (run / 'config.json').write_text(json.dumps(config))
  packing.write(run, tmp_path / 'out', name='other')
  for path in (tmp_path / 'out').iterdir():
    assert b'private' not in path.read_bytes()
  assert mtnet_jax.load(tmp_path / 'out').name == 'other'


def _edit_manifest(folder, **changes):
  path = folder / 'manifest.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _flip(path):
  data = bytearray(path.read_bytes())
  data[-100] ^= 1
  path.write_bytes(data)


def _without_fine(folder):
  path = folder / 'weights.safetensors'
  weights = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(
    {k: x for k, x in weights.items() if not k.startswith('fine')}, path
  )
  manifest = json.loads((folder / 'manifest.json').read_text())
  manifest['files'][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
  _edit_manifest(folder, **manifest)


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda b: _flip(b / 'weights.safetensors'), 'weights.*SHA-256.*again'),
    (lambda b: _flip(b / 'config.json'), r'config\.json is damaged or was'),
    (lambda b: _flip(b / 'README.md'), r'README\.md is damaged or was'),
    (lambda b: (b / 'metrics.json').unlink(), r'metrics\.json cannot be read'),
    (lambda b: (b / 'weights.safetensors').unlink(), 'weights.*cannot be read'),
    (lambda b: (b / 'manifest.json').unlink(), r'manifest\.json cannot be'),
    (lambda b: (b / 'manifest.json').write_text('{'), 'manifest.*damaged'),
    (lambda b: (b / 'manifest.json').write_text('[]'), 'format None'),
    (lambda b: _edit_manifest(b, format=3), 'format 3.*reads 2'),
    (lambda b: _edit_manifest(b, files={}), 'README.*SHA-256'),
    (_without_fine, r"one of the two trees only: \['fine'\]"),
  ],
)
def test_a_damaged_bundle_is_refused(packed, tmp_path, damage, message):
  copy = shutil.copytree(packed, tmp_path / 'copy')
  damage(copy)
  with pytest.raises(errors.InputError, match=message) as error:
    mtnet_jax.load(copy)
  assert '\n' not in str(error.value)


def test_weights_of_another_config_are_not_packed(made_run_dir, tmp_path):
  run = shutil.copytree(made_run_dir, tmp_path / 'run')
  config = json.loads((run / 'config.json').read_text())
  config['seg_net']['aspp_features'] = 5
  (run / 'config.json').write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match='variables/coarse.*shape'):
    packing.write(run, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_an_existing_folder_is_not_overwritten(made_run_dir, tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'mine').write_text('mine')
  with pytest.raises(errors.InputError, match='exists already'):
    packing.write(made_run_dir, tmp_path / 'out')
  assert (tmp_path / 'out' / 'mine').read_text() == 'mine'


def test_a_full_disk_leaves_nothing_behind(made_run_dir, tmp_path, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(safetensors.numpy, 'save_file', full)
  with pytest.raises(errors.InputError, match='written.*No space'):
    packing.write(made_run_dir, tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_the_command(made_run_dir, tmp_path):
  done = main_job.run(
    main_job.module(
      'mtnet_jax.bundle', f'--run={made_run_dir}', f'--out={tmp_path}/out'
    )
  )
  assert done.returncode == 0, done.stderr
  assert f"mtnet_jax.load('{tmp_path}/out')" in done.stdout
  assert mtnet_jax.load(tmp_path / 'out').name == 'made'


def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capsys):
  argv = ['bundle', f'--run={tmp_path}/none', f'--out={tmp_path}/new']
  monkeypatch.setattr(sys, 'argv', argv)
  with pytest.raises(SystemExit) as stopped:
    errors.exit_on_input_error(bundle.main)
  assert stopped.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert f'{tmp_path}/none does not exist' in line
