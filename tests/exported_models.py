"""Models with random weights and unusual settings, to test exports with."""

import re
import subprocess
import sys

import made_run
import numpy as np
import without

from mtnet_jax.inference import ensemble
from mtnet_jax.inference import model as model_lib

# Every field differs from that of the paper's networks.
SEG_FIELDS = {
  'middle_blocks': 2,
  'tail_widths': (6, 5),
  'tail_dilation': 3,
  'skip_relu': True,
  'aspp_rates': (2, 5),
  'input_mean': (-1.0, -0.9, -0.8),
  'input_std': (2.0, 1.5, 1.8),
  'bn_epsilon': 1e-3,
}
CLASS_FIELDS = {
  'middle_blocks': 1,
  'tail_dilation': 1,
  'skip_relu': True,
  'pool_padding': 'same',
  'exit_pool': True,
  'input_mean': (-1.0,),
  'input_std': (2.0,),
  'bn_epsilon': 1e-3,
}
# Name -> changes to a tiny config, and its spacing in mm.
VARIANTS = {
  'plain': ({'coarse_mask': 'soft'}, 0.0),
  'fields': (
    {
      'strategy': 'cam',
      'coarse_mask': 'soft',
      'image_size': 61,
      'window': (-800.0, 300.0),
      'seg_net': SEG_FIELDS,
      'class_net': CLASS_FIELDS,
    },
    0.7,
  ),
  'joint': (
    {
      'strategy': 'finetune',
      # A joint network uses a soft mask all the same.
      'coarse_mask': 'hard',
      'stages': ('coarse', 'class', 'fine', 'joint'),
    },
    0.0,
  ),
  'no mask': (
    {'coarse_mask': 'none', 'class_net': {'use_coarse_mask': False}},
    0.0,
  ),
}


def make(variant, *, seed=3, temperature=1.0):
  """Makes the model of a variant."""
  changes, spacing_mm = VARIANTS[variant]
  config = made_run.config_of(spacing_mm=spacing_mm)
  with config.unlocked():
    config.update(changes)
  return of_config(config, seed=seed, temperature=temperature)


def of_config(config, *, seed=3, temperature=1.0, variables=None):
  """Makes the model of a config, by default with random weights."""
  return model_lib.Model(
    name='made up',
    config=config,
    metrics={'simulated': True},
    card='',
    variables=variables or made_run.draw_variables(config, seed),
    temperature=temperature,
  )


def averaged(variant):
  """Makes a calibrated average of two trainings and all symmetries."""
  models = [make(variant, seed=seed) for seed in (3, 4)]
  return ensemble.Ensemble(
    models, symmetries=True, name='both', temperature=1.7
  )


def inputs(num_patches=3):
  """Returns HU patches and their spacings."""
  spacing_mm = np.linspace(0.5, 0.9, num_patches, dtype=np.float32)
  return made_run.patches(num_patches), spacing_mm


def assert_same(outputs, prediction, *, atol):
  """Fails if the outputs of an export differ from a prediction.

  Args:
    outputs: dict of arrays.
    prediction: `prediction.Prediction`.
    atol: tolerance of probabilities; for the activation map, relative to its
      largest value.
  """
  expected = vars(prediction)
  assert outputs.keys() == expected.keys()
  for name, values in expected.items():
    found = np.asarray(outputs[name])
    assert found.shape == values.shape, name
    if values.dtype == bool:
      assert found.dtype == bool, name
      if name == 'mask':
        # Only pixels close to the threshold may differ.
        sure = np.abs(expected['probability'] - 0.5) > atol
        np.testing.assert_array_equal(found[sure], values[sure], err_msg=name)
      else:
        assert np.mean(found != values) < 1e-3, name
      continue
    range_ = max(1.0, np.abs(values).max()) if name == 'cam' else 1.0
    assert np.abs(found - values).max() <= atol * range_, name


def run_readme(folder, cwd, *, missing, then):
  """Runs the code of an export's README without some packages.

  Args:
    folder: folder of the export.
    cwd: working directory.
    missing: names of the packages that cannot be imported.
    then: code to run after it.

  Returns:
    What the code prints.
  """
  text = (folder / 'README.md').read_text(encoding='utf-8')
  code = re.findall(r'```python\n(.*?)```', text, re.DOTALL)[0]
  done = subprocess.run(
    [sys.executable, '-c', without.WITHOUT % (missing,) + code + then],
    cwd=cwd,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout
