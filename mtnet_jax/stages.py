"""The three stages: which network learns what, from what, chosen by what."""

from collections.abc import Callable
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax import losses
from mtnet_jax import parallel
from mtnet_jax.models import mtnet

ORDER = ('coarse', 'class', 'fine')


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training.

  Attributes:
    name: 'coarse', 'class' or 'fine'; its checkpoints' folder.
    net: the network.
    task: 'segmentation' or 'classification'.
    loss_fn: (logits, batch) -> (B,) losses.
    select_by: validation metric of which the highest epoch is kept.
    batch_size: over all devices.
    epochs, learning_rate, schedule: of the optimizer.
    needs_coarse: the network also receives the coarse mask.
    start_from: stage whose trained variables it starts from, or ''.
  """

  name: str
  net: nn.Module
  task: str
  loss_fn: Callable[..., jax.Array]
  select_by: str
  batch_size: int
  epochs: int
  learning_rate: float
  schedule: str
  needs_coarse: bool = False
  start_from: str = ''


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
  """The stages of a config, in the order in which they are trained."""
  nets = make_nets(
    config, axis_name=parallel.AXIS if config.sync_batch_norm else None
  )
  rank = dict(config.rank_loss)

  def segmentation_loss(logits, batch):
    return losses.hybrid_loss(
      jax.nn.sigmoid(logits),
      batch['mask'],
      rank_weight=rank['weight'],
      top_k=rank['top_k'],
      margin=rank['margin'],
    )

  def class_loss(logits, batch):
    return losses.classification_loss(logits, batch['label'])

  segmentation = {
    'task': 'segmentation',
    'loss_fn': segmentation_loss,
    'select_by': 'jaccard',
  }
  classification = {
    'task': 'classification',
    'loss_fn': class_loss,
    'select_by': 'auc',
  }
  return (
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
      start_from='coarse',
      **segmentation,
      **config.fine_stage,
    ),
  )


def apply_net(net, variables, images, coarse_mask=None, **kwargs):
  """Applies a network that may or may not take a coarse mask."""
  inputs = (images,) if coarse_mask is None else (images, coarse_mask)
  return net.apply(variables, *inputs, **kwargs)


def hand_on(logits, kind):
  """The coarse mask as the other networks receive it.

  Args:
    logits: (B, H, W, 1) of the Coarse Seg-net.
    kind: 'hard' thresholds the probability at 0.5, 'soft' hands it on.
  """
  probs = jax.nn.sigmoid(logits)
  return (probs >= 0.5).astype(probs.dtype) if kind == 'hard' else probs


def init_variables(stage, rng, *, size, started=None):
  """Fresh variables of a stage's network.

  Args:
    stage: the stage.
    rng: random key.
    size: side of the input.
    started: trained variables of `stage.start_from`. Every leaf of theirs is
      taken over; only what that network lacks (the fine layer) stays random.

  Returns:
    {'params': ..., 'batch_stats': ...}
  """
  images = jnp.zeros((1, size, size, 3))
  mask = jnp.zeros((1, size, size, 1)) if stage.needs_coarse else None
  inputs = (images,) if mask is None else (images, mask)
  init = jax.jit(lambda rng: stage.net.init(rng, *inputs, train=False))
  variables = dict(init(rng))
  if stage.task == 'classification' and stage.net.use_coarse_mask:
    variables['params'] = mtnet.average_fourth_channel(variables['params'])
  if started is not None:
    variables = {
      name: take_over(tree, started[name], path=(stage.name, name))
      for name, tree in variables.items()
    }
  return variables


def take_over(fresh, trained, *, path):
  """`fresh` with every leaf of `trained`; raises where one does not fit."""
  if not isinstance(trained, dict):
    if fresh.shape != trained.shape:
      raise ValueError(
        f'{"/".join(path)}: shape {trained.shape} does not fit {fresh.shape}.'
      )
    return jnp.asarray(trained, fresh.dtype)
  unknown = trained.keys() - fresh.keys()
  if unknown:
    raise ValueError(f'{"/".join(path)}: no place for {sorted(unknown)}.')
  return {
    key: (
      take_over(value, trained[key], path=(*path, key))
      if key in trained
      else value
    )
    for key, value in fresh.items()
  }
