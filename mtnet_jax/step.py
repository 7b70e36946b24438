"""One step of training, written per device.

The numbers of the loss and the seed are arguments, not part of the program:
runs that differ in nothing else share one compiled step.

Collectives run over `parallel.AXIS`. Random numbers follow from the seed, the
step and the example's place in the global batch, so that a run that was killed
repeats itself exactly, and the number of devices changes nothing but the order
of sums.
"""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from mtnet_jax import augment
from mtnet_jax import losses
from mtnet_jax import parallel
from mtnet_jax import stages


@struct.dataclass
class TrainState:
  """Everything that changes while a stage trains.

  Attributes:
    step: steps taken, over all epochs.
    params, batch_stats: of the stage's network.
    opt_state: of the optimizer.
    loss_sum: losses of this epoch's steps, added up; part of the state so
      that an epoch resumed half-way logs the same mean.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  loss_sum: jax.Array


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """What the step needs beside the stage; see `configs/mtnet.py`.

  Attributes:
    size, window, coarse_mask, augmentation: as in the config.
    rank_most: the largest K of the rank loss that the step can be given.
    steps_per_epoch: after so many the sum of the losses begins anew.
  """

  size: int
  window: tuple[float, float]
  coarse_mask: str
  augmentation: augment.Augmentation
  rank_most: int
  steps_per_epoch: int


def loss_of_task(task, logits, targets, numbers, *, rank_most):
  """(B,) losses of a stage.

  Args:
    task: 'segmentation' or 'classification'.
    logits: of the stage's network.
    targets: 'mask' (B, H, W, 1) and 'label' (B,).
    numbers: of `loss_numbers`.
    rank_most: the largest 'top_k' that may be among them.
  """
  if task == 'classification':
    return losses.classification_loss(logits, targets['label'])
  return losses.hybrid_loss(
    jax.nn.sigmoid(logits),
    targets['mask'],
    rank_weight=numbers['rank_weight'],
    top_k=numbers['top_k'],
    margin=numbers['margin'],
    most=rank_most,
  )


def train_step(
  state,
  coarse_variables,
  data,
  batch,
  numbers,
  *,
  stage,
  coarse_net,
  tx,
  options,
):
  """One step on one device.

  Args:
    state: `TrainState`.
    coarse_variables: of the frozen Coarse Seg-net; {} where not needed.
    data: the whole split: 'image' and 'mask' (N, P, P), 'label' (N,).
    batch: 'index' (b,) into data, 'look' (b,), of which 0 is the plain patch,
      'place' (b,) in the global batch.
    numbers: 'seed', and those of `loss_numbers`, each ().
    stage, coarse_net, tx, options: static.

  Returns:
    The new state and {'loss': ()}, the mean over the global batch.
  """
  rng = jax.random.fold_in(jax.random.key(numbers['seed']), state.step)
  look_rng, dropout_rng = jax.random.split(rng)
  keys = jax.vmap(lambda i: jax.random.fold_in(look_rng, i))(batch['place'])
  images, mask = augment.training_looks(
    keys,
    batch['look'] == 0,
    data['image'][batch['index']],
    data['mask'][batch['index']],
    augmentation=options.augmentation,
    size=options.size,
    window=options.window,
  )
  targets = {'mask': mask, 'label': data['label'][batch['index']]}
  coarse_mask = None
  if stage.needs_coarse:
    logits, _ = coarse_net.apply(coarse_variables, images, train=False)
    coarse_mask = stages.hand_on(logits, options.coarse_mask)
  dropout_rng = jax.random.fold_in(dropout_rng, lax.axis_index(parallel.AXIS))

  def loss_of(params):
    (logits, _), updates = stages.apply_net(
      stage.net,
      {'params': params, 'batch_stats': state.batch_stats},
      images,
      coarse_mask,
      train=True,
      rngs={'dropout': dropout_rng},
      mutable=['batch_stats'],
    )
    each = loss_of_task(
      stage.task, logits, targets, numbers, rank_most=options.rank_most
    )
    return jnp.mean(each), updates['batch_stats']

  (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(
    state.params
  )
  # Without synchronised batch norm the devices' statistics differ; their mean
  # is what evaluation uses.
  loss, grads, batch_stats = lax.pmean(
    (loss, grads, batch_stats), parallel.AXIS
  )
  starts_epoch = state.step % options.steps_per_epoch == 0
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  state = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
    loss_sum=jnp.where(starts_epoch, 0, state.loss_sum) + loss,
  )
  return state, {'loss': loss}


def step_options(config, *, steps_per_epoch):
  """The `StepOptions` of a config."""
  return StepOptions(
    size=config.image_size,
    window=tuple(config.window),
    coarse_mask=config.coarse_mask,
    augmentation=augment.Augmentation(**config.augment),
    rank_most=config.rank_loss.most or config.rank_loss.top_k,
    steps_per_epoch=steps_per_epoch,
  )


def loss_numbers(config):
  """The numbers of a config's loss, of which no program depends on any."""
  rank = config.rank_loss
  return {
    'rank_weight': np.float32(rank.weight),
    'top_k': np.int32(rank.top_k),
    'margin': np.float32(rank.margin),
  }


@functools.lru_cache(maxsize=8)
def mapped(*, stage, coarse_net, tx, options, precision, device):
  """`train_step` over the devices, the same function for equal arguments.

  Args:
    stage, coarse_net, tx, options: of `train_step`.
    precision, device: as in `parallel.mapped`.
  """
  return parallel.mapped(
    functools.partial(
      train_step, stage=stage, coarse_net=coarse_net, tx=tx, options=options
    ),
    precision=precision,
    device=device,
    in_axes=(0, 0, 0, 0, None),
    donate_argnums=0,
  )
