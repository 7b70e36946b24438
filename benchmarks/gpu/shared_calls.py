"""Checks that steps in one call equal the same steps in single calls."""

import jax
import numpy as np

from benchmarks import problem
from benchmarks.gpu import budget
from benchmarks.gpu import rehearsal
from configs import mtnet as configs
from mtnet_jax.system import devices

STAGES = ('coarse', 'class')
_STEPS = 16


def check(stage_name, folder, tiny):
  """Runs 16 steps in one call and in 16 calls of the same compiled program.

  Args:
    stage_name: one of `STAGES`.
    folder: folder for checkpoints; nothing is written there.
    tiny: whether to use the networks of a rehearsal.

  Returns:
    The figures of a check. 'ok' is True if every leaf of the two states is
    equal bit for bit. 'repeats_itself' is False if the same call gives two
    different results, as it does if the device adds in no fixed order.
  """
  trainer = _trainer(stage_name, folder, tiny)
  together = _run(trainer, (_STEPS,))
  again = _run(trainer, (_STEPS,))
  alone = _run(trainer, (1,) * _STEPS)
  return {
    'ok': largest_difference(together, alone) == 0,
    'largest_difference': largest_difference(together, alone),
    'repeats_itself': largest_difference(together, again) == 0,
    'finite': bool(np.isfinite(together.loss_sum)),
  }


def _run(trainer, calls):
  """Returns the state after calls; `calls` are their numbers of steps."""
  state, step = trainer.put_on_devices(trainer.init_state()), 0
  for num_steps in calls:
    state, _ = trainer.steps(state, step, num_steps=num_steps)
    step += num_steps
  return devices.unreplicate(state)


def _trainer(stage_name, folder, tiny):
  config = rehearsal.get_config() if tiny else configs.get_config('test')
  with config.unlocked():
    config.steps_per_call = _STEPS
    for name in STAGES:
      config[f'{name}_stage'].batch_size = 8
  data = problem.discs(_STEPS * 8 // config.views_per_image)
  return budget.trainers_of(
    config, {'train': data, 'validation': data}, folder, until=stage_name
  )[stage_name]


def largest_difference(left, right):
  """Returns the largest absolute difference of two trees; NaN if any is NaN."""
  differences = jax.tree.map(
    lambda x, y: np.max(np.abs(np.asarray(x, np.float64) - y), initial=0),
    left,
    right,
  )
  return float(np.max(jax.tree.leaves(differences)))
