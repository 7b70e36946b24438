"""Makes the networks of a config, and checks variables against them."""

from collections.abc import Mapping
import functools
from typing import TYPE_CHECKING
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.models import baselines
from mtnet_jax.models import joint
from mtnet_jax.models import mtnet
from mtnet_jax.models import strategies
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.system import errors

if TYPE_CHECKING:
  import ml_collections

# The stages of MT-Net, in the order of training.
ORDER = strategies.stages_of('mtnet')


def names(config: 'ml_collections.ConfigDict') -> tuple[str, ...]:
  """Returns the stages that a config trains, in the order of training."""
  return tuple(
    name
    for name in strategies.stages_of(config.strategy)
    if name in config.stages
  )


def make_nets(
  config: 'ml_collections.ConfigDict', *, axis_name: str | None = None
) -> dict[str, nn.Module]:
  """Makes the networks of a config's strategy.

  Args:
    config: the config.
    axis_name: axis over which batch statistics are averaged, or None.

  Returns:
    Stage name -> network.
  """
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
    # The original Xception: with the last pooling, and without dilation.
    plain = {'use_coarse_mask': False, 'exit_pool': True, 'tail_dilation': 1}
    return {
      'fine': baselines.UNet(**_tuples(config.unet), **common),
      'class': mtnet.ClassNet(**{**class_net, **plain}),
    }
  coarse = mtnet.CoarseSegNet(**seg_net)
  classifier = mtnet.ClassNet(**class_net)
  fine = mtnet.FineSegNet(**seg_net)
  nets: dict[str, nn.Module] = {
    'coarse': coarse,
    'class': classifier,
    'fine': fine,
  }
  if strategy == 'finetune':
    nets['joint'] = joint.JointNet(coarse, classifier, fine)
  return nets


def _tuples(group):
  # `jax.jit` hashes modules, and lists cannot be hashed.
  return {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in group.items()
  }


def variable_shapes(
  config: 'ml_collections.ConfigDict',
) -> dict[str, dict[str, Any]]:
  """Returns shapes and types of the variables of a config's networks.

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


def check_variables(
  config: 'ml_collections.ConfigDict',
  variables: Mapping[str, Mapping[str, Any]],
) -> None:
  """Checks that variables have the names and shapes that a config asks for.

  Args:
    config: the config.
    variables: stage name -> variables of its network.

  Raises:
    errors.InputError: they do not.
  """
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
