"""An exported program says what the model does, where the package is not."""

import sys

import exported_models
import jax
from jax import export as jax_export
import made_run
import numpy as np
import pytest

from mtnet_jax import export
from mtnet_jax.inference import stablehlo
from mtnet_jax.system import errors

_USE = """
import numpy as np
with np.load('in.npz') as given:
  answer = predict(given['hu'], given['spacing'])
np.savez('out.npz', **answer)
import importlib.util
print(importlib.util.find_spec('mtnet_jax'), jax.__name__)
"""


@pytest.fixture(scope='module', name='exported')
def _exported(made_run_dir, tmp_path_factory):
  """The folder, written by the command."""
  out = tmp_path_factory.mktemp('exported') / 'out'
  argv = ['export', f'--checkpoint={made_run_dir}', f'--out={out}']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'argv', argv)
    export.main()
  return out


@pytest.mark.slow
def test_it_runs_without_this_package(exported, made_model, tmp_path):
  """The code of the folder's README, where mtnet_jax cannot be imported."""
  hu, spacing = made_run.patches(3), np.float32([0.6, 0.7, 0.8])
  np.savez(tmp_path / 'in.npz', hu=hu, spacing=spacing)
  missing = ['mtnet_jax', 'tfds_lidc', 'flax', 'orbax', 'tensorflow']
  printed = exported_models.run_readme(
    exported, tmp_path, missing=missing, then=_USE
  )
  assert printed.split() == ['None', 'jax']
  expected = made_model.predict(hu, spacing)
  with np.load(tmp_path / 'out.npz') as answer:
    # `predict` has Eigen's products, the exported program XLA's choice: sums in
    # another order, whose roundings go with the range of the values.
    for name in ('probability', 'malignancy', 'cam'):
      values = getattr(expected, name)
      np.testing.assert_allclose(
        answer[name],
        values,
        rtol=1e-5,
        atol=1e-6 * max(1, np.abs(values).max()),
        err_msg=name,
      )
    for name in ('mask', 'coarse_mask'):
      np.testing.assert_array_equal(answer[name], getattr(expected, name))


def test_the_readme_says_how_long_it_lasts(exported):
  text = (exported / 'README.md').read_text()
  for words in ('six months', f'JAX {jax.__version__}', 'SIMULATED', 'medical'):
    assert words in text, words
  assert '{' not in text


def test_it_is_for_every_platform(exported):
  program = jax_export.deserialize(
    bytearray((exported / 'mtnet.jax_export').read_bytes())
  )
  assert program.platforms == stablehlo.PLATFORMS == ('cpu', 'cuda', 'tpu')
  # What `ops` chooses by platform is chosen where it runs.
  assert 'stablehlo.case' in program.mlir_module()


def test_what_cannot_be_exported_is_refused(exported, tmp_path):
  with pytest.raises(errors.InputError, match='nowhere does not exist'):
    export.write('nowhere', tmp_path / 'new')
  assert not list(tmp_path.iterdir())
  with pytest.raises(errors.InputError, match='exists already'):
    export.write('nowhere', exported)
