"""One step of training, written per device.

The numbers of the loss and the seed are arguments, not part of the program:
runs that differ in nothing else share one compiled step.

Collectives run over `devices.AXIS`. Random numbers follow from the seed, the
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

from mtnet_jax import losses
from mtnet_jax.data import augment
from mtnet_jax.models import chain
from mtnet_jax.models import strategies
from mtnet_jax.system import devices


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
    size, window, strategy, coarse_mask, augmentation: as in the config.
    rank_most: the largest K of the rank loss that the step can be given.
    steps_per_epoch: after so many the sum of the losses begins anew.
  """

  size: int
  window: tuple[float, float]
  strategy: str
  coarse_mask: str
  augmentation: augment.Augmentation
  rank_most: int
  steps_per_epoch: int


def loss_of_task(task, logits, targets, numbers, *, rank_most):
  """(B,) losses of a stage.

  Args:
    task: 'segmentation', 'classification' or 'both'.
    logits: of the stage's network; for both tasks a dict of them, masks and
      'class'.
    targets: 'mask' (B, H, W, 1) and 'label' (B,); labels of -1 count for
      segmentation only.
    numbers: of `loss_numbers`.
    rank_most: the largest 'top_k' that may be among them.
  """
  if task == 'classification':
    return losses.classification_loss(logits, targets['label'])

  def segmentation_loss(logits):
    return losses.hybrid_loss(
      jax.nn.sigmoid(logits),
      targets['mask'],
      rank_weight=numbers['rank_weight'],
      top_k=numbers['top_k'],
      margin=numbers['margin'],
      most=rank_most,
    )

  if task == 'segmentation':
    return segmentation_loss(logits)
  masks = [x for name, x in logits.items() if name != 'class']
  labels = targets['label']
  malignant = losses.classification_loss(
    logits['class'], jnp.maximum(labels, 0)
  )
  malignant = jnp.where(labels >= 0, malignant, 0.0)
  return (
    sum(map(segmentation_loss, masks)) + numbers['class_weight'] * malignant
  )


def train_step(
  state,
  given,
  data,
  batch,
  numbers,
  *,
  stage,
  nets,
  tx,
  options,
):
  """One step on one device.

  Args:
    state: `TrainState`.
    given: stage name -> variables of the trained networks that run before
      this one; they stay as they are.
    data: the whole split, or what some steps need of it: 'image' and 'mask'
      (N, P, P), 'label' (N,).
    batch: 'index' (b,) into data, 'look' (b,), of which 0 is the plain patch,
      'place' (b,) in the global batch.
    numbers: 'seed', and those of `loss_numbers`, each ().
    stage, nets, tx, options: static; nets are (stage name, network) pairs,
      of `given` at least.

  Returns:
    The new state, and {'loss': (), 'finite': ()}: the mean over the global
    batch, and whether it and its gradient are finite.
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
  said = chain.run(
    strategies.givers(options.strategy, stage.name),
    dict(nets),
    given,
    images,
    strategy=options.strategy,
    coarse_mask=options.coarse_mask,
  )
  inputs = chain.receive(
    stage.receives, images, said, coarse_mask=options.coarse_mask
  )
  dropout_rng = jax.random.fold_in(dropout_rng, lax.axis_index(devices.AXIS))

  def loss_of(params):
    (logits, _), updates = stage.net.apply(
      {'params': params, 'batch_stats': state.batch_stats},
      *inputs,
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
  loss, grads, batch_stats = lax.pmean((loss, grads, batch_stats), devices.AXIS)
  starts_epoch = state.step % options.steps_per_epoch == 0
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  state = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=batch_stats,
    opt_state=opt_state,
    loss_sum=jnp.where(starts_epoch, 0, state.loss_sum) + loss,
  )
  finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
  return state, {'loss': loss, 'finite': finite}


def train_steps(state, given, data, batches, count, numbers, **static):
  """Some steps on one device, one after the other.

  Args:
    state, given, data, numbers: of `train_step`.
    batches: of `train_step`, for the most steps that there may be: (K, b).
    count: of steps to take, at most K, (). Where K is 1 it is 1.
    **static: of `train_step`.

  Returns:
    The new state, and {'loss': (K,), 'finite': (K,)}, of which the first
    `count` are filled in.
  """
  (most,) = {len(x) for x in batches.values()}

  def take(state, i):
    batch = {key: x[i] for key, x in batches.items()}
    return train_step(state, given, data, batch, numbers, **static)

  if most == 1:
    state, values = take(state, 0)
    return state, {key: x[None] for key, x in values.items()}

  def one_more(carry):
    i, state, taken = carry
    state, values = take(state, i)
    return (
      i + 1,
      state,
      {key: taken[key].at[i].set(values[key]) for key in taken},
    )

  taken = {'loss': jnp.zeros(most), 'finite': jnp.zeros(most, bool)}
  # Not `lax.scan`, whose length would be the program's: an epoch ends with as
  # many steps as are left of it.
  _, state, taken = lax.while_loop(
    lambda carry: carry[0] < count, one_more, (jnp.int32(0), state, taken)
  )
  return state, taken


def step_options(config, *, steps_per_epoch):
  """The `StepOptions` of a config."""
  return StepOptions(
    size=config.image_size,
    window=tuple(config.window),
    strategy=config.strategy,
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
    'class_weight': np.float32(config.class_weight),
  }


@functools.lru_cache(maxsize=8)
def mapped(*, stage, nets, tx, options, precision, device):
  """`train_steps` over the devices, the same function for equal arguments.

  Args:
    stage, nets, tx, options: of `train_step`.
    precision, device: as in `devices.mapped`.
  """
  return devices.mapped(
    functools.partial(
      train_steps, stage=stage, nets=nets, tx=tx, options=options
    ),
    precision=precision,
    device=device,
    options=devices.lean_options(),
    in_axes=(0, 0, 0, 0, None, None),
    donate_argnums=0,
  )
