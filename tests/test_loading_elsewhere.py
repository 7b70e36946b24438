"""The dataset opens where little is installed."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_lidc import build

_CARD = pathlib.Path(build.__file__).with_name('lidc_nodules') / 'README.md'

# Makes an interpreter find no trace of some modules.
_WITHOUT = """
import sys
from importlib import machinery
finders = list(sys.meta_path)
class Without:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in %r:
      return None
    specs = (f.find_spec(name, path, target) for f in finders)
    return next(filter(None, specs), None)
  def find_distributions(self, *args, **kwargs):
    return machinery.PathFinder.find_distributions(*args, **kwargs)
sys.meta_path[:] = [Without()]
"""


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Four phantoms of each split."""
  data_dir = tmp_path_factory.mktemp('data')
  few = tfds.download.DownloadConfig(max_examples_per_split=4)
  build.build('phantom', data_dir=data_dir, download_config=few)
  return data_dir


def _run_without(modules, code, cwd, *args):
  """Runs code in a process in which some modules cannot be imported."""
  done = subprocess.run(
    [sys.executable, '-c', _WITHOUT % (modules,) + code, *map(str, args)],
    cwd=cwd,
    text=True,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


def test_data_source_without_tensorflow(data_dir, tmp_path):
  code = (
    'import numpy as np, tfds_lidc, tensorflow_datasets as tfds\n'
    'source = tfds.data_source('
    '"lidc_nodules/phantom", split="train", data_dir=sys.argv[1])\n'
    'first = source[0]\n'
    'print(len(source), first["image"].shape, first["label"] in (0, 1))\n'
  )
  out = _run_without(['tensorflow', 'jax'], code, tmp_path, data_dir)
  assert out == ['4', '(64,', '64,', '1)', 'True']


def test_modules_are_really_missing(tmp_path):
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


def _snippet():
  """The card's PyTorch example."""
  (code,) = re.findall(r'```python\n(.*?)```', _CARD.read_text(), re.DOTALL)
  return code


def test_the_cards_pytorch_example(data_dir, monkeypatch):
  torch = pytest.importorskip('torch', reason='needs torch')
  given = tfds.data_source
  monkeypatch.setattr(
    tfds,
    'data_source',
    lambda name, split: given(
      'lidc_nodules/phantom', split=split, data_dir=data_dir
    ),
  )
  names = {}
  exec(compile(_snippet(), str(_CARD), 'exec'), names)
  dataset = names['Nodules']('train')
  image, mask, label = dataset[0]
  assert image.shape == mask.shape == (1, 64, 64)
  assert image.dtype == mask.dtype == label.dtype == torch.float32
  record = given('lidc_nodules/phantom', split='train', data_dir=data_dir)[0]
  window = np.clip((record['image'][..., 0] + 1000.0) / 1400, 0, 1)
  np.testing.assert_allclose(image[0].numpy(), window, atol=1e-6)
  np.testing.assert_array_equal(mask[0].numpy(), record['mask'][..., 0])
  # A batch, through processes as a training would.
  loader = torch.utils.data.DataLoader(dataset, batch_size=4)
  images, masks, labels = next(iter(loader))
  assert images.shape == masks.shape == (4, 1, 64, 64)
  assert labels.tolist() == [float(r['label']) for r in dataset.nodules]
  assert len(names['loader'].dataset) == 4


def test_the_cards_example_is_python():
  compile(_snippet(), str(_CARD), 'exec')
  assert 'torch.utils.data.Dataset' in _snippet()
