"""Runs training steps and an evaluation on made-up patches, for `test_step`.

    python tests/step_job.py OUT DEVICES SYNC STAGES [TRAINED]

writes to OUT, an .npz file: the losses of three steps of each stage, the
gradients and batch statistics of the first step, and the variables after the
last one. With all three stages it also writes the networks' outputs for 13
patches and their metrics. If TRAINED, the OUT of another job, is given, these
are computed with its variables.

A step has 16 examples, over the devices that XLA_FLAGS gives this process. Jobs
with several devices run the last two steps in one call, in a loop. Dropout is
off, because it is drawn per device. ReLUs are smooth: of millions of values,
some are so close to 0 that rounding changes their sign, which would change the
gradients by 7e-4 of their norm instead of 5e-6.
"""

import pathlib
import sys
from unittest import mock

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import project_configs

from mtnet_jax import metrics
from mtnet_jax.data import nodules
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.system import devices as devices_lib
from mtnet_jax.training import optim
from mtnet_jax.training import stages
from mtnet_jax.training import trainer as trainer_lib

STEPS = 3
# Not divisible by any number of devices above one.
EVALUATED = 13


def tiny_config(*, sync_batch_norm):
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.sync_batch_norm = sync_batch_norm
    config.seg_net.dropout_rates = (0.0, 0.0, 0.0)
    # A threshold would turn differences of rounding into differences of pixels.
    config.coarse_mask = 'soft'
    # With this momentum, three steps are enough for the running statistics.
    config.seg_net.bn_momentum = config.class_net.bn_momentum = 0.3
    for stage in nets_lib.ORDER:
      config[f'{stage}_stage'].batch_size = 16
      config[f'{stage}_stage'].learning_rate = 1e-4
      config[f'{stage}_stage'].schedule = 'constant'
  return config


def made_up_nodules(count):
  rng = np.random.default_rng(0)
  rows, columns = np.mgrid[:64, :64]
  radius = rng.uniform(4, 12, (count, 1, 1))
  mask = (rows - 32) ** 2 + (columns - 32) ** 2 < radius**2
  image = np.where(mask, -50, -850) + rng.normal(0, 40, (count, 64, 64))
  return nodules.Nodules(
    image=image.astype(np.int16),
    mask=mask.astype(np.uint8),
    votes=mask.astype(np.uint8),
    label=(radius[:, 0, 0] > 8).astype(np.int32),
    info={},
    simulated=True,
  )


def coarse_config():
  """Returns a config smaller than `tiny_config`, which compiles in seconds."""
  config = tiny_config(sync_batch_norm=True)
  with config.unlocked():
    config.coarse_stage.batch_size = 4
    config.image_size = 32
    config.seg_net.update(
      stem_widths=(4,), entry_widths=(4, 4), middle_blocks=0, tail_widths=(4,)
    )
  return config


def coarse_trainer(config, data, directory, identity=None):
  """Returns the trainer of a config's first stage."""
  return trainer_lib.Trainer(
    stages.make_stages(config)[0],
    config,
    nets=nets_lib.make_nets(config),
    trained={},
    train=data,
    validation=data,
    directory=directory,
    identity=identity,
  )


def short_trainer(directory, identity=None, **changes):
  """Returns a trainer of two epochs of three steps.

  There are 6 nodules, 2 views of each and batches of 4.
  """
  config = coarse_config()
  with config.unlocked():
    config.coarse_stage.epochs = 2
    config.views_per_image = 2
    config.coarse_stage.update(changes)
  data = made_up_nodules(6)
  data.info['nodule_id'] = np.array([f'nodule-{i}' for i in range(6)])
  return coarse_trainer(config, data, directory, identity)


def score(config, variables, data):
  """Returns the outputs of the three networks, and their metrics."""
  outputs = outputs_lib.predict(config, variables, data, progress=iter)
  found = {f'output/{key}': value for key, value in outputs.items()}
  for name in ('coarse', 'fine'):
    values = metrics.segmentation_metrics(
      outputs[name] >= metrics.THRESHOLD, data.mask
    )
    found.update({f'metric/{name}/{key}': x for key, x in values.items()})
  values = metrics.classification_metrics(outputs['class'], data.label)
  return found | {f'metric/class/{key}': x for key, x in values.items()}


def recording(make_optimizer):
  """Wraps `make_optimizer` so that `opt_state[0]` has the last gradients."""

  def make(**kwargs):
    record = optax.GradientTransformation(
      lambda params: jax.tree.map(jnp.zeros_like, params),
      lambda grads, state, params=None: (grads, grads),
    )
    return optax.chain(record, make_optimizer(**kwargs))

  return make


def smooth_relu(x):
  """Returns max(x, 0) within 0.09."""
  return jax.nn.softplus(8 * x) / 8


def flat(name, tree):
  return {
    f'{name}/{path}': leaf
    for path, leaf in traverse_util.flatten_dict(tree, sep='/').items()
  }


def main(out, devices, sync, names, trained=None):
  assert jax.device_count() == int(devices)
  config = tiny_config(sync_batch_norm=sync == 'sync')
  data = made_up_nodules(40)
  nets = nets_lib.make_nets(config)
  trainer_lib.optim.make_optimizer = recording(optim.make_optimizer)
  calls = [(step, 1) for step in range(STEPS)]
  if int(devices) > 1:
    calls = [(0, 1), (1, STEPS - 1)]
    with config.unlocked():
      config.steps_per_call = STEPS
  found, variables = {}, {}
  before = {}
  for stage in stages.make_stages(config):
    trainer = trainer_lib.Trainer(
      stage,
      config,
      nets=nets,
      trained=before,
      train=data,
      validation=data,
      directory=pathlib.Path(out).with_suffix('.checkpoints'),
    )
    initial = trainer.init_state()
    if stage.name == 'coarse':
      # Equal on any number of devices, unlike trained variables.
      before['coarse'] = {
        'params': initial.params,
        'batch_stats': initial.batch_stats,
      }
    if stage.name not in names.split(','):
      continue
    state = trainer.put_on_devices(initial)
    losses = []
    for step, count in calls:
      # The first call is traced with the smooth ReLU, and later ones reuse it.
      with mock.patch.object(nn, 'relu', smooth_relu):
        state, values = trainer.steps(state, step, num_steps=count)
      losses.extend(devices_lib.unreplicate(values['loss'])[:count])
      if step == 0:
        host = devices_lib.unreplicate(state)
        found.update(flat(f'{stage.name}/gradient', host.opt_state[0]))
        found.update(flat(f'{stage.name}/batch_stats', host.batch_stats))
    found[f'{stage.name}/losses'] = np.asarray(losses)
    host = devices_lib.unreplicate(state)
    variables[stage.name] = {
      'params': host.params,
      'batch_stats': host.batch_stats,
    }
  if trained:
    with np.load(trained) as other:
      variables = traverse_util.unflatten_dict(
        {
          key.removeprefix('trained/'): other[key]
          for key in other
          if key.startswith('trained/')
        },
        sep='/',
      )
  if len(variables) == len(nets_lib.ORDER):
    found.update(score(config, variables, data.take(slice(0, EVALUATED))))
  np.savez(out, **found, **flat('trained', variables))


if __name__ == '__main__':
  main(*sys.argv[1:])


def config_of_strategy(strategy, changes=None):
  """Returns a strategy's config, with smaller networks than `tiny_config`."""
  config = tiny_config(sync_batch_norm=False)
  small = {'middle_blocks': 0, 'exit_width': 4, 'tail_widths': (4,)}
  with config.unlocked():
    config.strategy = strategy
    config.coarse_mask = 'soft'
    config.image_size = 32
    config.seg_net.update(small, stem_widths=(4,), entry_widths=(4, 4))
    config.class_net.update(small, stem_widths=(4,), entry_widths=(4,))
    config.update(changes or {})
  return config
