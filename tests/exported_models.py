"""Models of random weights that differ in what an export must carry over."""

import re
import subprocess
import sys

import made_run
import numpy as np
import without

from mtnet_jax.inference import ensemble
from mtnet_jax.inference import model as model_lib

# Far from what the paper's networks have, field by field.
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
# Name -> changes of a tiny config, and the spacing.
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
      # Of a joint network the mask is a soft one all the same.
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
  """The `model.Model` of a variant."""
  changes, spacing_mm = VARIANTS[variant]
  config = made_run.config_of(spacing_mm=spacing_mm)
  with config.unlocked():
    config.update(changes)
  return of_config(config, seed=seed, temperature=temperature)


def of_config(config, *, seed=3, temperature=1.0, variables=None):
  """The `model.Model` of a config, by default of random weights."""
  return model_lib.Model(
    name='made up',
    config=config,
    metrics={'simulated': True},
    card='',
    variables=variables or made_run.draw_variables(config, seed),
    temperature=temperature,
  )


def averaged(variant):
  """Two trainings, each on all symmetries, with calibrated probabilities."""
  models = [make(variant, seed=seed) for seed in (3, 4)]
  return ensemble.Ensemble(
    models, symmetries=True, name='both', temperature=1.7
  )


def inputs(count=3):
  """HU patches and spacings to compare answers on."""
  spacing_mm = np.linspace(0.5, 0.9, count, dtype=np.float32)
  return made_run.patches(count), spacing_mm


def assert_same(answer, prediction, *, atol):
  """Fails where two answers differ.

  Args:
    answer: dict of arrays.
    prediction: `prediction.Prediction`.
    atol: of probabilities; of the activation map, a share of its largest value.
  """
  expected = vars(prediction)
  assert answer.keys() == expected.keys()
  for name, values in expected.items():
    found = np.asarray(answer[name])
    assert found.shape == values.shape, name
    if values.dtype == bool:
      assert found.dtype == bool, name
      of = {'mask': 'probability'}.get(name)
      if of:
        # On the other side of the threshold lies what is next to it alone.
        sure = np.abs(expected[of] - 0.5) > atol
        np.testing.assert_array_equal(found[sure], values[sure], err_msg=name)
      else:
        assert np.mean(found != values) < 1e-3, name
      continue
    range_ = max(1.0, np.abs(values).max()) if name == 'cam' else 1.0
    assert np.abs(found - values).max() <= atol * range_, name


def run_readme(folder, cwd, *, missing, then):
  """Runs the code of an export's README where some packages are not.

  Args:
    folder: of the export.
    cwd: working folder.
    missing: names of the packages that cannot be imported.
    then: code that follows it.

  Returns:
    What it prints.
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
