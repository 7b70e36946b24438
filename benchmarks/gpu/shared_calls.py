"""Steps that share a call of a program are the steps of single calls."""

import jax
import numpy as np

from benchmarks.gpu import rehearsal
from configs import mtnet as configs
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.system import devices
from mtnet_jax.training import stages as stages_lib
from mtnet_jax.training import trainer as trainer_lib

STAGES = ('coarse', 'class')
_STEPS = 16


def check(stage_name, folder, tiny):
  """Runs 16 steps in one call and in 16, of one compiled program.

  Args:
    stage_name: of `STAGES`.
    folder: for checkpoints, none of which are written.
    tiny: the networks of a rehearsal.

  Returns:
    The figures of a check: 'ok' if every leaf of the state is the same, bit
    for bit; the largest difference; and whether one call repeats itself, which
    it does not where sums are made in any order.
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
  """The state after calls of so many steps each."""
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
  data = _discs(_STEPS * 8 // config.views_per_image)
  nets, trained = nets_lib.make_nets(config), {}
  for stage in stages_lib.make_stages(config):
    trainer = trainer_lib.Trainer(
      stage,
      config,
      nets=nets,
      trained=trained,
      train=data,
      validation=data,
      directory=folder / stage.name,
    )
    if stage.name == stage_name:
      return trainer
    state = trainer.init_state()
    trained[stage.name] = {
      'params': state.params,
      'batch_stats': state.batch_stats,
    }
  raise ValueError(f'no stage {stage_name!r}')


def _discs(count):
  """Made-up nodules, of which the larger ones are malignant."""
  rng = np.random.default_rng(0)
  rows, columns = np.mgrid[:64, :64]
  radius = rng.uniform(4, 12, (count, 1, 1))
  mask = (rows - 32) ** 2 + (columns - 32) ** 2 < radius**2
  image = np.where(mask, -50, -850) + rng.normal(0, 40, mask.shape)
  return nodules_lib.Nodules(
    image=image.astype(np.int16),
    mask=mask.astype(np.uint8),
    votes=mask.astype(np.uint8),
    label=(radius[:, 0, 0] > 8).astype(np.int32),
    info={},
    simulated=True,
  )


def largest_difference(left, right):
  """The largest absolute difference of two trees; NaN where values are."""
  differences = jax.tree.map(
    lambda x, y: np.max(np.abs(np.asarray(x, np.float64) - y), initial=0),
    left,
    right,
  )
  return float(np.max(jax.tree.leaves(differences)))
