"""The three stages: which network learns what, from what, chosen by what."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax import errors
from mtnet_jax import metrics
from mtnet_jax import parallel
from mtnet_jax.models import mtnet

ORDER = ('coarse', 'class', 'fine')
COARSE_MASKS = ('hard', 'soft', 'none')
_FINE_LAYER = 'fine_layer'


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training: plain data, equal where everything in it is.

  Attributes:
    name: 'coarse', 'class' or 'fine'; its checkpoints' folder.
    net: the network.
    task: 'segmentation' or 'classification', which says what the loss is.
    select_by: validation metric of which the highest epoch is kept.
    batch_size: over all devices.
    epochs, learning_rate, schedule: of the optimizer.
    needs_coarse: the network also receives the coarse mask.
    starts_from_coarse: it starts from the trained coarse variables.
  """

  name: str
  net: nn.Module
  task: str
  select_by: str
  batch_size: int
  epochs: int
  learning_rate: float
  schedule: str
  needs_coarse: bool = False
  starts_from_coarse: bool = False


def make_nets(config, *, axis_name=None):
  """The three networks of a config, by stage name."""
  common = {'dtype': jnp.dtype(config.dtype), 'axis_name': axis_name}
  seg_net = {**_tuples(config.seg_net), **common}
  class_net = {**_tuples(config.class_net), **common}
  return {
    'coarse': mtnet.CoarseSegNet(**seg_net),
    'class': mtnet.ClassNet(**class_net),
    'fine': mtnet.FineSegNet(**seg_net),
  }


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
  segmentation = {'task': 'segmentation', 'select_by': 'jaccard'}
  classification = {'task': 'classification', 'select_by': 'auc'}
  known = (
    Stage('coarse', nets['coarse'], **segmentation, **config.coarse_stage),
    Stage(
      'class',
      nets['class'],
      needs_coarse=True,
      **classification,
      **config.class_stage,
    ),
    Stage(
      'fine',
      nets['fine'],
      needs_coarse=True,
      starts_from_coarse=True,
      **segmentation,
      **config.fine_stage,
    ),
  )
  return tuple(stage for stage in known if stage.name in config.stages)


def apply_net(net, variables, images, coarse_mask=None, **kwargs):
  """Applies a network that may or may not take a coarse mask."""
  inputs = (images,) if coarse_mask is None else (images, coarse_mask)
  return net.apply(variables, *inputs, **kwargs)


def hand_on(logits, kind):
  """The coarse mask as the other networks receive it.

  Args:
    logits: (B, H, W, 1) of the Coarse Seg-net.
    kind: 'hard' thresholds the probability, 'soft' hands it on, 'none' hands on
      zeros: the same networks without what the Coarse Seg-net knows.
  """
  if kind not in COARSE_MASKS:
    raise ValueError(f'the coarse mask is {COARSE_MASKS}, not {kind!r}.')
  probs = jax.nn.sigmoid(logits)
  if kind == 'none':
    return jnp.zeros_like(probs)
  if kind == 'soft':
    return probs
  return (probs >= metrics.THRESHOLD).astype(probs.dtype)


def init_variables(
  stage, rng, *, size, started=None, fresh_only=(_FINE_LAYER,)
):
  """Variables of a stage's network before its first step.

  Args:
    stage: the stage.
    rng: random key.
    size: side of the input.
    started: trained coarse variables, or public weights. Every leaf of theirs
      is taken over.
    fresh_only: what they lack, and stays random: the fine layer where they
      are the coarse net's.

  Returns:
    {'params': ..., 'batch_stats': ...}
  """
  init = _compiled_init(stage.net, size, takes_mask=stage.needs_coarse)
  variables = dict(init(rng))
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


# Kept, so that the runs of a sweep compile it once.
@functools.lru_cache(maxsize=16)
def _compiled_init(net, size, *, takes_mask):
  shapes = [(1, size, size, 3)] + [(1, size, size, 1)] * takes_mask
  return jax.jit(
    lambda rng: net.init(rng, *map(jnp.zeros, shapes), train=False)
  )


def variable_shapes(config):
  """The variables of the three networks of a config, as shapes and types.

  Returns:
    Stage name -> {'params', 'batch_stats'} of `jax.ShapeDtypeStruct`.
  """
  size = config.image_size
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  mask = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
  return {
    name: jax.eval_shape(
      functools.partial(net.init, train=False),
      jax.random.key(0),
      *((images,) if name == 'coarse' else (images, mask)),
    )
    for name, net in make_nets(config).items()
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
