"""One step of training, written per device.

The hyperparameters of the loss and the seed are arguments, not part of the
program: runs that differ in nothing else share one compiled step.

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
    averaged: {'params', 'batch_stats'}, moving averages of them; None where
      `StepOptions.weight_average` is 0.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  loss_sum: jax.Array
  averaged: Any = None

  @property
  def variables(self):
    """What is validated and kept: the averages, where there are any."""
    if self.averaged is not None:
      return self.averaged
    return {'params': self.params, 'batch_stats': self.batch_stats}


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """What the step needs beside the stage; see `configs/mtnet.py`.

  Attributes:
    size, window, strategy, coarse_mask, augmentation: as in the config.
    max_top_k: the largest K of the rank loss that the step supports.
    steps_per_epoch: steps after which the sum of the losses begins anew.
    cross_entropy: whether the loss of masks has a `pixel_cross_entropy`.
    weight_average: decay of the moving average of the variables; 0 for none.
  """

  size: int
  window: tuple[float, float]
  strategy: str
  coarse_mask: str
  augmentation: augment.Augmentation
  max_top_k: int
  steps_per_epoch: int
  cross_entropy: bool = False
  weight_average: float = 0.0


def loss_of_task(
  task, logits, targets, hyperparams, *, max_top_k, cross_entropy=False
):
  """(B,) losses of a stage.

  Args:
    task: 'segmentation', 'classification' or 'both'.
    logits: of the stage's network; for both tasks a dict of them, masks and
      'class'.
    targets: 'mask' (B, H, W, 1) and 'label' (B,); labels of -1 count for
      segmentation only.
    hyperparams: of `loss_hyperparams`.
    max_top_k: the largest 'top_k' that may be among them.
    cross_entropy: whether 'cross_entropy_weight' is more than 0.
  """
  if task == 'classification':
    return losses.classification_loss(logits, targets['label'])

  def segmentation_loss(logits):
    loss = losses.hybrid_loss(
      jax.nn.sigmoid(logits),
      targets['mask'],
      rank_weight=hyperparams['rank_weight'],
      top_k=hyperparams['top_k'],
      margin=hyperparams['margin'],
      max_top_k=max_top_k,
    )
    if cross_entropy:
      loss += hyperparams['cross_entropy_weight'] * losses.pixel_cross_entropy(
        logits, targets['mask']
      )
    return loss

  if task == 'segmentation':
    return segmentation_loss(logits)
  masks = [x for name, x in logits.items() if name != 'class']
  labels = targets['label']
  malignant = losses.classification_loss(
    logits['class'], jnp.maximum(labels, 0)
  )
  malignant = jnp.where(labels >= 0, malignant, 0.0)
  return (
    sum(map(segmentation_loss, masks)) + hyperparams['class_weight'] * malignant
  )


def train_step(
  state, upstream, data, batch, hyperparams, *, stage, nets, tx, options
):
  """One step on one device.

  Args:
    state: `TrainState`.
    upstream: stage name -> variables of the trained networks that run before
      this one; they stay as they are.
    data: the whole split, or what some steps need of it: 'image' and 'mask'
      (N, P, P), 'label' (N,).
    batch: 'index' (b,) into data, 'view' (b,), of which 0 is the plain patch,
      'position' (b,) in the global batch.
    hyperparams: 'seed', and those of `loss_hyperparams`, each ().
    stage, nets, tx, options: static; nets are (stage name, network) pairs,
      of `upstream` at least.

  Returns:
    The new state, and {'loss': (), 'finite': ()}: the mean over the global
    batch, and whether it and its gradient are finite.
  """
  rng = jax.random.fold_in(jax.random.key(hyperparams['seed']), state.step)
  view_rng, dropout_rng = jax.random.split(rng)
  keys = jax.vmap(lambda i: jax.random.fold_in(view_rng, i))(batch['position'])
  images, mask = augment.training_views(
    keys,
    batch['view'] == 0,
    data['image'][batch['index']],
    data['mask'][batch['index']],
    augmentation=options.augmentation,
    size=options.size,
    window=options.window,
  )
  targets = {'mask': mask, 'label': data['label'][batch['index']]}
  upstream_outputs = chain.run(
    strategies.upstream_names(options.strategy, stage.name),
    dict(nets),
    upstream,
    images,
    strategy=options.strategy,
    coarse_mask=options.coarse_mask,
  )
  inputs = chain.stage_inputs(
    stage.inputs, images, upstream_outputs, coarse_mask=options.coarse_mask
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
      stage.task,
      logits,
      targets,
      hyperparams,
      max_top_k=options.max_top_k,
      cross_entropy=options.cross_entropy,
    )
    return jnp.mean(each), updates['batch_stats']

  (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(
    state.params
  )
  # Without synchronised batch norm the devices' statistics differ; evaluation
  # uses their mean.
  loss, grads, batch_stats = lax.pmean((loss, grads, batch_stats), devices.AXIS)
  starts_epoch = state.step % options.steps_per_epoch == 0
  # Optax counts steps in int32 and divides them.
  with jax.numpy_dtype_promotion('standard'):
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  averaged = state.averaged
  if averaged is not None:
    averaged = _moved_towards(
      {'params': params, 'batch_stats': batch_stats},
      averaged,
      step=state.step,
      decay=options.weight_average,
    )
  state = state.replace(
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    averaged=averaged,
    loss_sum=jnp.where(starts_epoch, 0, state.loss_sum) + loss,
  )
  finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
  return state, {'loss': loss, 'finite': finite}


def _moved_towards(variables, averaged, *, step, decay):
  """The moving averages after a step.

  The first steps count for less than the decay would have it: (1 + step) / (10
  + step) is the most that an average keeps of itself, as in TensorFlow's
  `ExponentialMovingAverage`, so that it soon forgets where it began.
  """
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(
    lambda x, mean: mean + (1 - decay) * (x - mean), variables, averaged
  )


def train_steps(
  state, upstream, data, batches, num_steps, hyperparams, **static
):
  """Some steps on one device, one after the other.

  Args:
    state, upstream, data, hyperparams: of `train_step`.
    batches: of `train_step`, for as many steps as there may be: (K, b).
    num_steps: steps to run, at most K, (). Where K is 1 it is 1.
    **static: of `train_step`.

  Returns:
    The new state, and {'loss': (K,), 'finite': (K,)}, of which the first
    `num_steps` are filled in.
  """
  (max_steps,) = {len(x) for x in batches.values()}

  def run_step(state, i):
    batch = {key: x[i] for key, x in batches.items()}
    return train_step(state, upstream, data, batch, hyperparams, **static)

  if max_steps == 1:
    state, values = run_step(state, 0)
    return state, {key: x[None] for key, x in values.items()}

  def next_step(carry):
    i, state, found = carry
    state, values = run_step(state, i)
    found = {key: found[key].at[i].set(values[key]) for key in found}
    return i + 1, state, found

  found = {'loss': jnp.zeros(max_steps), 'finite': jnp.zeros(max_steps, bool)}
  # Not `lax.scan`, whose length would be the program's: the last call of an
  # epoch has as many steps as remain.
  _, state, found = lax.while_loop(
    lambda carry: carry[0] < num_steps, next_step, (jnp.int32(0), state, found)
  )
  return state, found


def step_options(config, *, steps_per_epoch):
  """The `StepOptions` of a config."""
  return StepOptions(
    size=config.image_size,
    window=tuple(config.window),
    strategy=config.strategy,
    coarse_mask=config.coarse_mask,
    augmentation=augment.Augmentation(**config.augment),
    max_top_k=config.rank_loss.max_top_k or config.rank_loss.top_k,
    steps_per_epoch=steps_per_epoch,
    cross_entropy=config.cross_entropy_weight > 0,
    weight_average=config.weight_average,
  )


def loss_hyperparams(config):
  """Hyperparameters of a config's loss, on whose values no program depends."""
  rank = config.rank_loss
  return {
    'rank_weight': np.float32(rank.weight),
    'top_k': np.int32(rank.top_k),
    'margin': np.float32(rank.margin),
    'class_weight': np.float32(config.class_weight),
    'cross_entropy_weight': np.float32(config.cross_entropy_weight),
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
