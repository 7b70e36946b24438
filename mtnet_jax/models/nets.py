"""The networks of a config, by stage name."""

import functools

import jax
import jax.numpy as jnp

from mtnet_jax.models import baselines
from mtnet_jax.models import joint
from mtnet_jax.models import mtnet
from mtnet_jax.models import strategies
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.system import errors

# The stages of MT-Net; other strategies have their own.
ORDER = strategies.stages_of('mtnet')


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


def variable_shapes(config):
  """The variables of the networks of a config, as shapes and types.

  Returns:
    Stage name -> {'params', 'batch_stats'} of `jax.ShapeDtypeStruct`.
  """
  nets, parts = make_nets(config), strategies.STRATEGIES[config.strategy]
  return {
    name: variables_lib.cached_shapes_of(
      nets[name], config.image_size, parts[name].inputs
    )
    for name in names(config)
  }


def check_variables(config, variables):
  """Raises `errors.InputError` where variables are not those of a config."""
  try:
    jax.eval_shape(
      functools.partial(
        variables_lib.take_over, path=('variables',), newly_initialised=()
      ),
      variable_shapes(config),
      variables,
    )
  except ValueError as error:
    raise errors.InputError(
      f'weights and config do not belong together: {error}'
    ) from error
