"""An exported program says what the model does, where the package is not."""

import re
import subprocess
import sys

import jax
from jax import export as jax_export
import made_run
import numpy as np
import pytest
import test_bad_input
import test_loading_elsewhere

import mtnet_jax
from mtnet_jax import export

_USE = """
import numpy as np
with np.load('in.npz') as given:
  answer = predict(given['hu'], given['spacing'])
  one = predict(given['hu'][:1], 0.7)
np.savez('out.npz', one=one['malignancy'], **answer)
import importlib.util
print(importlib.util.find_spec('mtnet_jax'), jax.__name__)
"""


@pytest.fixture(scope='module', name='exported')
def _exported(made_run_dir, tmp_path_factory):
  """The folder, written by the command."""
  folder = tmp_path_factory.mktemp('exported')
  done = test_bad_input.run_module(
    'mtnet_jax.export', f'--checkpoint={made_run_dir}', f'--out={folder}/out'
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return folder / 'out'


def test_it_runs_without_this_package(exported, made_run_dir, tmp_path):
  """The code of the folder's README, where mtnet_jax cannot be imported."""
  (code,) = re.findall(
    r'```python\n(.*?)```', (exported / 'README.md').read_text(), re.DOTALL
  )
  hu, spacing = made_run.patches(3), np.float32([0.6, 0.7, 0.8])
  np.savez(tmp_path / 'in.npz', hu=hu, spacing=spacing)
  missing = ['mtnet_jax', 'tfds_lidc', 'flax', 'orbax', 'tensorflow']
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      test_loading_elsewhere._WITHOUT % (missing,) + code + _USE,
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stdout.split() == ['None', 'jax']
  expected = mtnet_jax.load(made_run_dir).predict(hu, spacing)
  with np.load(tmp_path / 'out.npz') as answer:
    for name in ('probability', 'malignancy', 'cam'):
      np.testing.assert_allclose(
        answer[name],
        getattr(expected, name),
        rtol=1e-5,
        atol=1e-6,
        err_msg=name,
      )
    for name in ('mask', 'coarse_mask'):
      np.testing.assert_array_equal(answer[name], getattr(expected, name))
    np.testing.assert_allclose(
      answer['one'], expected.malignancy[:1], rtol=1e-5, atol=1e-6
    )


def test_the_readme_says_how_long_it_lasts(exported):
  text = (exported / 'README.md').read_text()
  for words in ('six months', f'JAX {jax.__version__}', 'SIMULATED', 'medical'):
    assert words in text, words
  assert '{' not in text


def test_it_is_for_every_platform(exported):
  program = jax_export.deserialize(
    bytearray((exported / 'mtnet.jax_export').read_bytes())
  )
  assert program.platforms == export.PLATFORMS == ('cpu', 'cuda', 'tpu')
  # The dilated convolutions are there in both their forms.
  text = program.mlir_module()
  assert 'rhs_dilate = [6, 6]' in text or 'rhs_dilation' in text
  assert 'stablehlo.case' in text


@pytest.mark.parametrize(
  ('arguments', 'says'),
  [
    (('--checkpoint=nowhere', '--out={}/new'), 'nowhere does not exist'),
    (('--checkpoint={run}', '--out={}'), 'exists already'),
  ],
)
def test_what_cannot_be_exported_is_refused(
  exported, made_run_dir, arguments, says
):
  done = test_bad_input.run_module(
    'mtnet_jax.export',
    *(text.format(exported, run=made_run_dir) for text in arguments),
  )
  test_bad_input.assert_refused(done, says)
  assert not (exported / 'new').exists()
