"""The stages: which network learns what, from what, chosen by what."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax import errors
from mtnet_jax import fresh
from mtnet_jax import parallel
from mtnet_jax import strategies
from mtnet_jax.models import baselines
from mtnet_jax.models import joint
from mtnet_jax.models import mtnet

# Of MT-Net; other strategies have stages of their own.
ORDER = strategies.stages_of('mtnet')
_FINE_LAYER = 'fine_layer'
_TASKS = {
  'coarse': 'segmentation',
  'class': 'classification',
  'fine': 'segmentation',
  'joint': 'both',
}
_SELECT_BY = {
  'segmentation': 'jaccard',
  'classification': 'auc',
  # The mean of the two.
  'both': 'jaccard_and_auc',
}


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training: plain data, equal where everything in it is.

  Attributes:
    name: of `strategies.STAGES`; its checkpoints' folder.
    net: the network.
    task: 'segmentation', 'classification' or 'both', which says what the loss
      is.
    select_by: validation metric of which the highest epoch is kept.
    batch_size: over all devices.
    epochs, learning_rate, schedule: of the optimizer.
    receives: what the network receives beside the image, of
      `strategies.KINDS`.
    starts_from: stages whose trained variables it starts from.
  """

  name: str
  net: nn.Module
  task: str
  select_by: str
  batch_size: int
  epochs: int
  learning_rate: float
  schedule: str
  receives: str = 'nothing'
  starts_from: tuple[str, ...] = ()


def names(config):
  """Names of the stages that a config trains, in their order."""
  return tuple(
    name
    for name in strategies.stages_of(config.strategy)
    if name in config.stages
  )


def make_nets(config, *, axis_name=None):
  """The networks of a config's strategy, by stage name."""
  common = {'dtype': jnp.dtype(config.dtype), 'axis_name': axis_name}
  seg_net = {**_tuples(config.seg_net), **common}
  class_net = {**_tuples(config.class_net), **common}
  strategy = config.strategy
  if strategy in ('shared', 'feedback'):
    net = baselines.SharedNet(
      **seg_net, use_segmentation=strategy == 'feedback'
    )
    return {'joint': net}
  if strategy == 'serial':
    return {
      'fine': mtnet.CoarseSegNet(**seg_net),
      'class': mtnet.ClassNet(**class_net, use_coarse_mask=False),
    }
  if strategy == 'single':
    # Xception as it was, with the last pooling and nothing dilated.
    plain = {'use_coarse_mask': False, 'exit_pool': True, 'tail_dilation': 1}
    return {
      'fine': baselines.UNet(**_tuples(config.unet), **common),
      'class': mtnet.ClassNet(**{**class_net, **plain}),
    }
  nets = {
    'coarse': mtnet.CoarseSegNet(**seg_net),
    'class': mtnet.ClassNet(**class_net),
    'fine': mtnet.FineSegNet(**seg_net),
  }
  if strategy == 'finetune':
    nets['joint'] = joint.JointNet(nets['coarse'], nets['class'], nets['fine'])
  return nets


def _tuples(group):
  # Modules are hashed by jit, lists cannot be.
  return {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in group.items()
  }


def make_stages(config):
  """The stages that a config trains, in the order in which it does."""
  nets = make_nets(
    config, axis_name=parallel.AXIS if config.sync_batch_norm else None
  )
  return tuple(
    Stage(
      name,
      nets[name],
      task=_TASKS[name],
      select_by=_SELECT_BY[_TASKS[name]],
      receives=part.receives,
      starts_from=part.starts_from,
      **config[f'{name}_stage'],
    )
    for name, part in strategies.STRATEGIES[config.strategy].items()
    if name in config.stages
  )


def input_shapes(receives, size, batch_size=1):
  """Shapes and types of what a network receives.

  Args:
    receives: beside the image, of `strategies.KINDS`.
    size: side of the images.
    batch_size: how many of them.
  """
  each = (batch_size, size, size)
  image = jax.ShapeDtypeStruct((*each, 3), jnp.float32)
  channels = strategies.KINDS[receives].channels
  if not channels:
    return (image,)
  return image, jax.ShapeDtypeStruct((*each, channels), jnp.float32)


def init_variables(
  stage, seed, *, size, started=None, fresh_only=(_FINE_LAYER,)
):
  """Variables of a stage's network before its first step.

  Args:
    stage: the stage.
    seed: from 0.
    size: side of the input.
    started: trained variables, of `start`, or public weights. Every leaf of
      theirs is taken over.
    fresh_only: what they lack, and stays random: the fine layer where they
      are the coarse net's.

  Returns:
    {'params': ..., 'batch_stats': ...}
  """
  shapes = _shapes(stage.net, size, stage.receives)
  variables = dict(fresh.variables(shapes, seed))
  if stage.task == 'classification' and stage.net.use_coarse_mask:
    variables['params'] = mtnet.average_fourth_channel(variables['params'])
  if started is not None:
    variables = {
      name: take_over(
        tree, started[name], path=(stage.name, name), fresh_only=fresh_only
      )
      for name, tree in variables.items()
    }
  return variables


# Kept: tracing a network takes longer than drawing its variables.
@functools.lru_cache(maxsize=16)
def _shapes(net, size, receives):
  return jax.eval_shape(
    functools.partial(net.init, train=False),
    jax.random.key(0),
    *input_shapes(receives, size),
  )


def stage_shapes(stage, *, size):
  """The shapes and types of `init_variables`."""
  return _shapes(stage.net, size, stage.receives)


def start(stage, trained):
  """Variables that a stage starts from.

  Args:
    stage: the stage.
    trained: stage name -> variables, of `stage.starts_from` at least.
  """
  variables = {name: trained[name] for name in stage.starts_from}
  if stage.task == 'both':
    return joint.joined(variables)
  (only,) = variables.values()
  return only


def variable_shapes(config):
  """The variables of the networks of a config, as shapes and types.

  Returns:
    Stage name -> {'params', 'batch_stats'} of `jax.ShapeDtypeStruct`.
  """
  nets, parts = make_nets(config), strategies.STRATEGIES[config.strategy]
  return {
    name: _shapes(nets[name], config.image_size, parts[name].receives)
    for name in names(config)
  }


def check_variables(config, variables):
  """Raises `errors.InputError` where variables are not those of a config."""
  try:
    jax.eval_shape(
      functools.partial(take_over, path=('variables',), fresh_only=()),
      variable_shapes(config),
      variables,
    )
  except ValueError as error:
    raise errors.InputError(
      f'weights and config do not belong together: {error}'
    ) from error


def take_over(fresh, trained, *, path, fresh_only=(_FINE_LAYER,)):
  """`fresh` with every leaf of `trained`.

  Args:
    fresh: nested dict of arrays.
    trained: the same, without the names in `fresh_only`.
    path: where in the tree this is, for messages.
    fresh_only: names that only `fresh` has at its top, and that stay as they
      are.

  Returns:
    A tree of the structure of `fresh`.

  Raises:
    ValueError: anything else is on one side only, or a shape differs.
  """
  where = '/'.join(path)
  if isinstance(fresh, dict) != isinstance(trained, dict):
    raise ValueError(f'{where}: a leaf on one side, a group on the other.')
  if not isinstance(fresh, dict):
    if fresh.shape != trained.shape:
      raise ValueError(
        f'{where}: shape {trained.shape} does not fit {fresh.shape}.'
      )
    return jnp.asarray(trained, fresh.dtype)
  kept = {key: fresh[key] for key in fresh if key in fresh_only}
  differing = (fresh.keys() - kept.keys()) ^ trained.keys()
  if differing:
    raise ValueError(f'{where}: on one side only: {sorted(differing)}.')
  taken = {
    key: take_over(fresh[key], value, path=(*path, key), fresh_only=())
    for key, value in trained.items()
  }
  return {**taken, **kept}
