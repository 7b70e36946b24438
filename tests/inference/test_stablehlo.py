"""A StableHLO program predicts what the model does, without the package."""

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
with np.load('in.npz') as arrays:
  outputs = predict(arrays['hu'], arrays['spacing'])
np.savez('out.npz', **outputs)
import importlib.util
print(importlib.util.find_spec('mtnet_jax'), jax.__name__)
"""


@pytest.fixture(scope='module', name='exported')
def _exported(made_run_dir, tmp_path_factory):
  """Runs the command, and returns the folder that it writes."""
  out = tmp_path_factory.mktemp('exported') / 'out'
  argv = ['export', f'--checkpoint={made_run_dir}', f'--out={out}']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'argv', argv)
    export.main()
  return out


@pytest.mark.slow
def test_it_runs_without_this_package(exported, made_model, tmp_path):
  """Runs the code of the README while mtnet_jax cannot be imported."""
  hu, spacing = made_run.patches(3), np.float32([0.6, 0.7, 0.8])
  np.savez(tmp_path / 'in.npz', hu=hu, spacing=spacing)
  missing = ['mtnet_jax', 'tfds_lidc', 'flax', 'orbax', 'tensorflow']
  printed = exported_models.run_readme(
    exported, tmp_path, missing=missing, then=_USE
  )
  assert printed.split() == ['None', 'jax']
  expected = made_model.predict(hu, spacing)
  with np.load(tmp_path / 'out.npz') as outputs:
    # `predict` uses Eigen's matrix products, the exported program XLA's choice:
    # they sum in another order, with rounding relative to the largest value.
    for name in ('probability', 'malignancy', 'cam'):
      values = getattr(expected, name)
      np.testing.assert_allclose(
        outputs[name],
        values,
        rtol=1e-5,
        atol=1e-6 * max(1, np.abs(values).max()),
        err_msg=name,
      )
    for name in ('mask', 'coarse_mask'):
      np.testing.assert_array_equal(outputs[name], getattr(expected, name))


def test_the_readme_states_how_long_jax_loads_it(exported):
  text = (exported / 'README.md').read_text()
  for words in ('six months', f'JAX {jax.__version__}', 'SIMULATED', 'medical'):
    assert words in text, words
  assert '{' not in text


def test_it_is_for_every_platform(exported):
  program = jax_export.deserialize(
    bytearray((exported / 'mtnet.jax_export').read_bytes())
  )
  assert program.platforms == stablehlo.PLATFORMS == ('cpu', 'cuda', 'tpu')
  # Where `ops` has a form per platform, the program holds them all.
  assert 'stablehlo.case' in program.mlir_module()


def test_wrong_paths_are_refused(exported, tmp_path):
  with pytest.raises(errors.InputError, match='nowhere does not exist'):
    export.write('nowhere', tmp_path / 'new')
  assert not list(tmp_path.iterdir())
  with pytest.raises(errors.InputError, match='exists already'):
    export.write('nowhere', exported)
