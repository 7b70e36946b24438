"""The dataset opens where few packages are installed."""

import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import dicom_files
import numpy as np
import pytest
import tensorflow_datasets as tfds
import without

from tfds_lidc import build
from tfds_lidc import errors

_CARD = pathlib.Path(build.__file__).with_name('lidc_nodules') / 'README.md'


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A data directory with four phantoms per split."""
  data_dir = tmp_path_factory.mktemp('data')
  few = tfds.download.DownloadConfig(max_examples_per_split=4)
  build.build('phantom', data_dir=data_dir, download_config=few)
  return data_dir


def _run_without(modules, code, cwd, *args):
  """Returns the words that code prints where `modules` cannot be imported."""
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      without.WITHOUT % (modules,) + code,
      *map(str, args),
    ],
    cwd=cwd,
    text=True,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


def test_data_source_opens_without_tensorflow(data_dir, tmp_path):
  code = (
    'import numpy as np, tfds_lidc, tensorflow_datasets as tfds\n'
    'source = tfds.data_source('
    '"lidc_nodules/phantom", split="train", data_dir=sys.argv[1])\n'
    'first = source[0]\n'
    'print(len(source), first["image"].shape, first["label"] in (0, 1))\n'
  )
  out = _run_without(['tensorflow', 'jax'], code, tmp_path, data_dir)
  assert out == ['4', '(64,', '64,', '1)', 'True']


def test_nothing_imports_an_installed_tensorflow(data_dir, tmp_path):
  """TensorFlow could be imported here, but no way to open a dataset does."""
  code = (
    'import sys, tfds_lidc, tensorflow_datasets as tfds\n'
    'from tfds_lidc import build\n'
    'data_dir = sys.argv[1]\n'
    'name = "lidc_nodules/phantom"\n'
    'sources = ['
    'tfds.data_source(name, split="test", data_dir=data_dir),'
    'tfds.builder(name, data_dir=data_dir).as_data_source("test"),'
    'build.build("phantom", data_dir=data_dir).as_data_source("test"),'
    'tfds.builder_from_directory(sys.argv[2]).as_data_source("test")]\n'
    'print(*(sum(int(r["mask"].sum()) for r in s) > 0 for s in sources))\n'
    'print({"tensorflow", "jax", "torch"} & set(sys.modules))\n'
  )
  (version,) = data_dir.glob('lidc_nodules/phantom/*')
  done = _python(tmp_path, '-c', code, str(data_dir), str(version))
  assert done.stdout.splitlines() == ['True True True True', 'set()'], (
    done.stderr
  )


def test_hidden_modules_are_not_found(tmp_path):
  code = 'import importlib.util as u; print(u.find_spec("tfds_lidc"))'
  assert _run_without(['tfds_lidc'], code, tmp_path) == ['None']


def test_builder_from_directory_without_this_package(data_dir, tmp_path):
  (version,) = data_dir.glob('lidc_nodules/phantom/*')
  code = (
    'import tensorflow_datasets as tfds\n'
    'builder = tfds.builder_from_directory(sys.argv[1])\n'
    'source = builder.as_data_source("test")\n'
    'print(len(source), builder.info.metadata["simulated"],'
    ' *(sum(r["mask"].sum() for r in source),))\n'
  )
  modules = ['tfds_lidc', 'mtnet_jax', 'tensorflow', 'jax', 'pylidc', 'pydicom']
  count, simulated, pixels = _run_without(modules, code, tmp_path, version)
  assert (count, simulated) == ('4', 'True')
  source = build.build('phantom', data_dir=data_dir).as_data_source('test')
  assert int(pixels) == sum(int(r['mask'].sum()) for r in source) > 0


def _snippet(word):
  """The code of the card's only example that contains `word`."""
  blocks = re.findall(r'```python\n(.*?)```', _CARD.read_text(), re.DOTALL)
  (code,) = (block for block in blocks if word in block)
  return code


def _execute(word, data_dir, tmp_path, monkeypatch):
  """Runs an example of the card on phantoms; returns its global names."""
  # The example gets a file of its own, as Grain reads the source of functions.
  program = tmp_path / 'program.py'
  program.write_text(_snippet(word))
  data_source = tfds.data_source
  monkeypatch.setattr(
    tfds,
    'data_source',
    lambda name, split: data_source(
      name.replace('/paper', '/phantom'), split=split, data_dir=data_dir
    ),
  )
  return runpy.run_path(str(program))


def _window(record):
  return np.clip((record['image'] + 1000.0) / 1400, 0, 1)


def test_the_cards_pytorch_example(data_dir, tmp_path, monkeypatch):
  torch = pytest.importorskip('torch', reason='needs torch')
  names = _execute('torch', data_dir, tmp_path, monkeypatch)
  dataset = names['Nodules']('train')
  image, mask, label = dataset[0]
  assert image.shape == mask.shape == (1, 64, 64)
  assert image.dtype == mask.dtype == label.dtype == torch.float32
  record = dataset.nodules[0]
  np.testing.assert_allclose(image[0], _window(record)[..., 0], atol=1e-6)
  np.testing.assert_array_equal(mask[0].numpy(), record['mask'][..., 0])
  loader = torch.utils.data.DataLoader(dataset, batch_size=4)
  images, masks, labels = next(iter(loader))
  assert images.shape == masks.shape == (4, 1, 64, 64)
  assert labels.tolist() == [float(r['label']) for r in dataset.nodules]
  assert len(names['loader'].dataset) == 4


def test_the_cards_grain_example(data_dir, tmp_path, monkeypatch):
  pytest.importorskip('grain', reason='needs grain')
  names = _execute('grain', data_dir, tmp_path, monkeypatch)
  batches = list(names['batches'])
  # Ten epochs of four nodules; what remains after two batches of 16 is dropped.
  assert [len(batch['label']) for batch in batches] == [16, 16]
  assert (
    batches[0]['image'].shape == batches[0]['mask'].shape == (16, 64, 64, 1)
  )
  assert batches[0]['image'].dtype == np.float32
  records = {
    _window(r).astype(np.float32).tobytes(): r
    for r in tfds.data_source('lidc_nodules/paper', split='train')
  }
  order = []
  for image, mask, label in zip(
    *(batches[0][k] for k in ('image', 'mask', 'label')), strict=True
  ):
    record = records[image.tobytes()]
    np.testing.assert_array_equal(mask, record['mask'])
    assert label == record['label']
    order.append(record['nodule_id'])
  epochs = [tuple(order[i : i + 4]) for i in range(0, 16, 4)]
  assert all(len(set(epoch)) == 4 for epoch in epochs)
  assert len(set(epochs)) > 1
  # A second pass gives the same batches, bit for bit.
  for first, second in zip(batches, names['batches'], strict=True):
    np.testing.assert_array_equal(first['image'], second['image'])


def test_grain_data_loader_reads_every_nodule_once_per_epoch(data_dir):
  grain = pytest.importorskip('grain', reason='needs grain')

  class Image(grain.transforms.Map):
    def map(self, nodule):
      return nodule['nodule_id'], nodule['image']

  nodules = tfds.data_source(
    'lidc_nodules/phantom', split='train', data_dir=data_dir
  )
  loader = grain.DataLoader(
    data_source=nodules,
    sampler=grain.samplers.IndexSampler(
      len(nodules), shuffle=True, num_epochs=2, seed=0
    ),
    operations=[Image(), grain.transforms.Batch(4)],
    worker_count=0,
  )
  images = {nodule['nodule_id']: nodule['image'] for nodule in nodules}
  epochs = list(loader)
  assert len(epochs) == 2
  for ids, batch in epochs:
    assert set(ids) == set(images)
    for nodule_id, image in zip(ids, batch, strict=True):
      np.testing.assert_array_equal(image, images[nodule_id])


@pytest.mark.slow
def test_grain_reads_in_worker_processes(data_dir, tmp_path):
  """The card's last remark; the workers are new interpreters."""
  pytest.importorskip('grain', reason='needs grain')
  code = _snippet('grain').replace('/paper', '/phantom')
  (tmp_path / 'program.py').write_text(
    'from absl import app\n' + code + 'def main(_):\n'
    '  processes = batches.mp_prefetch('
    'grain.MultiprocessingOptions(num_workers=2))\n'
    '  print([np.array_equal(a["image"], b["image"])'
    ' for a, b in zip(batches, processes, strict=True)])\n'
    'if __name__ == "__main__":\n'
    '  app.run(main)\n'
  )
  done = _python(
    tmp_path, 'program.py', env={**os.environ, 'TFDS_DATA_DIR': str(data_dir)}
  )
  assert done.stdout == '[True, True]\n', done.stderr


@pytest.fixture
def home(tmp_path):
  """A home directory with the dataset `paper` of one SIMULATED scan."""
  dicom_files.write_series(tmp_path / 'ct')
  build.build(
    'paper',
    lidc_dir=tmp_path / 'ct',
    data_dir=tmp_path / 'tensorflow_datasets',
  )
  shutil.rmtree(tmp_path / 'ct')
  return tmp_path


def _python(cwd, *args, **kwargs):
  return subprocess.run(
    [sys.executable, *args],
    cwd=cwd,
    text=True,
    capture_output=True,
    check=False,
    **kwargs,
  )


@pytest.mark.extra
def test_the_cards_tfds_load(home):
  """Runs the card's command and example without a change."""
  pytest.importorskip('tensorflow', reason='needs the extra tf')
  env = {**os.environ, 'HOME': str(home)}
  command = re.search(
    r'^    python (-m tfds_lidc.build .*--tfrecord)$', _CARD.read_text(), re.M
  )
  done = _python(home, *command[1].split(), env=env)
  assert done.returncode == 0, done.stderr
  code = _snippet('tfds.load(') + (
    'records = tfds.data_source("lidc_nodules/paper", split="train")\n'
    'for one, other in zip(nodules, records, strict=True):\n'
    '  assert (one["image"].numpy() == other["image"]).all()\n'
    'print(type(nodules).__mro__[-6:], len(records))\n'
  )
  done = _python(home, '-c', code, env=env)
  assert done.returncode == 0, done.stderr
  assert 'data.Dataset' in done.stdout or 'DatasetV2' in done.stdout


def test_error_of_tfds_load_of_array_record_names_two_ways_out(data_dir):
  with pytest.raises(errors.InputError) as e:
    tfds.load('lidc_nodules/phantom', split='train', data_dir=data_dir)
  message = str(e.value)
  assert 'tfds.data_source' in message
  assert (
    f'python -m tfds_lidc.build --config=phantom --data_dir={data_dir} '
    '--tfrecord'
  ) in message


@pytest.mark.parametrize(
  'name, download, command',
  (
    ('paper', True, '--config=paper --data_dir={} --lidc_dir=DIR'),
    ('paper', False, '--config=paper --data_dir={} --lidc_dir=DIR'),
    ('phantom', False, '--config=phantom --data_dir={}'),
  ),
)
def test_error_of_a_missing_build_names_its_command(
  tmp_path, name, download, command
):
  """As in the README's example, where the home directory has no dataset."""
  with pytest.raises(errors.InputError) as e:
    tfds.data_source(
      f'lidc_nodules/{name}',
      split='train',
      data_dir=tmp_path,
      download=download,
    )
  message = str(e.value)
  assert f'lidc_nodules/{name} is not built in {tmp_path}' in message
  build = f'`python -m tfds_lidc.build {command.format(tmp_path)}`'
  assert build in message and '\n' not in message


def test_tfrecord_without_tensorflow_is_a_one_line_error(data_dir, tmp_path):
  code = (
    'import runpy\n'
    'sys.argv[0] = "build"\n'
    'runpy.run_module("tfds_lidc.build", run_name="__main__")\n'
  )
  done = _python(
    tmp_path,
    '-c',
    without.WITHOUT % (['tensorflow'],) + code,
    '--config=phantom',
    f'--data_dir={data_dir}',
    '--tfrecord',
  )
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert "pip install 'mtnet_jax[tf]'" in done.stderr
