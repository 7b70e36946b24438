"""One training step, written for one device.

The seed and the hyperparameters of the loss are arguments of the compiled step,
not constants in it: runs that differ only in these share one program.

Collectives run over `devices.AXIS`. Random numbers follow from the seed, the
step and the example's position in the global batch. A run that was killed and
resumed therefore repeats itself exactly. The number of devices changes only the
order of sums, and which features dropout sets to 0.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
from typing import Any

from flax import linen as nn
from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import optax

from mtnet_jax import losses
from mtnet_jax.data import augment
from mtnet_jax.models import chain
from mtnet_jax.models import strategies
from mtnet_jax.system import devices
from mtnet_jax.training import options as options_lib
from mtnet_jax.training import stage as stage_lib

# (stage name, network) pairs: unlike a dict, they can be hashed.
Nets = tuple[tuple[str, nn.Module], ...]


class TrainState(struct.PyTreeNode):
  """Everything that changes while a stage trains.

  Attributes:
    step: number of steps run, over all epochs.
    params: parameters of the stage's network.
    batch_stats: running statistics of its batch norms.
    opt_state: state of the optimizer.
    loss_sum: sum of the losses of this epoch's steps. It is part of the state
      so that an epoch resumed half-way logs the same mean.
    averaged: {'params', 'batch_stats'}, their moving averages; None where
      `options.StepOptions.weight_average` is 0.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  loss_sum: jax.Array
  averaged: Any = None

  @property
  def variables(self) -> dict[str, Any]:
    """The variables to validate and keep: the averages if there are any."""
    if self.averaged is not None:
      return self.averaged
    return {'params': self.params, 'batch_stats': self.batch_stats}


def loss_of_task(
  task: str,
  logits: Any,
  targets: Mapping[str, jax.Array],
  hyperparams: Mapping[str, jax.typing.ArrayLike],
  *,
  max_top_k: int,
  cross_entropy: bool = False,
) -> jax.Array:
  """Computes the loss of each example.

  Args:
    task: 'segmentation', 'classification' or 'both'.
    logits: of masks (B, H, W, 1) or of malignancy (B,). For both tasks a dict:
      'class' has the logits of malignancy, all other keys those of masks.
    targets: 'mask' (B, H, W, 1) and 'label' (B,). With both tasks, examples
      whose label is -1 count for segmentation only.
    hyperparams: as returned by `options.loss_hyperparams`.
    max_top_k: an upper bound of hyperparams['top_k'].
    cross_entropy: whether hyperparams['cross_entropy_weight'] is above 0.

  Returns:
    (B,) losses.
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
  state: TrainState,
  upstream: Mapping[str, Any],
  data: Mapping[str, jax.Array],
  batch: Mapping[str, jax.Array],
  hyperparams: Mapping[str, jax.typing.ArrayLike],
  *,
  stage: stage_lib.Stage,
  nets: Nets,
  tx: optax.GradientTransformation,
  options: options_lib.StepOptions,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Runs one step on one device.

  Args:
    state: the state before the step.
    upstream: stage name -> variables of the trained networks that run before
      this one; they are not trained.
    data: the whole split, or the part of it that the batch needs: 'image' and
      'mask' (N, P, P), 'label' (N,).
    batch: 'index' (b,) into `data`; 'view' (b,), where 0 is the patch without
      augmentation; 'position' (b,) in the global batch.
    hyperparams: 'seed', and those of `options.loss_hyperparams`; all scalars.
    stage: the stage that is trained.
    nets: the networks, of the stages in `upstream` at least.
    tx: the optimizer.
    options: as returned by `options.step_options`.

  Returns:
    The state after the step, and {'loss': (), 'finite': ()}: the mean loss over
    the global batch, and whether it and its gradient are finite.
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
  """Returns the moving averages after a step.

  The decay of the first steps is at most (1 + step) / (10 + step), as in
  TensorFlow's `ExponentialMovingAverage`, so that the initial values soon have
  no weight.

  Args:
    variables: the variables after the step.
    averaged: their moving averages before the step.
    step: number of steps run before this one.
    decay: weight of the earlier averages.
  """
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(
    lambda x, mean: mean + (1 - decay) * (x - mean), variables, averaged
  )


def train_steps(
  state: TrainState,
  upstream: Mapping[str, Any],
  data: Mapping[str, jax.Array],
  batches: Mapping[str, jax.Array],
  num_steps: jax.typing.ArrayLike,
  hyperparams: Mapping[str, jax.typing.ArrayLike],
  **static: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Runs several steps on one device, one after the other.

  Args:
    state: as in `train_step`.
    upstream: as in `train_step`.
    data: as in `train_step`, for all of the steps.
    batches: the arrays of `batch` in `train_step`, for at most K steps: (K, b).
    num_steps: (), how many steps to run, at most K; ignored where K is 1.
    hyperparams: as in `train_step`.
    **static: the keyword arguments of `train_step`.

  Returns:
    The state after the steps, and {'loss': (K,), 'finite': (K,)}, of which the
    first `num_steps` values are filled in.
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
  # `lax.scan` has a fixed length; the last call of an epoch has only as many
  # steps as remain.
  _, state, found = lax.while_loop(
    lambda carry: carry[0] < num_steps, next_step, (jnp.int32(0), state, found)
  )
  return state, found


@functools.lru_cache(maxsize=8)
def mapped(
  *,
  stage: stage_lib.Stage,
  nets: Nets,
  tx: optax.GradientTransformation,
  options: options_lib.StepOptions,
  precision: str,
  device: jax.Device | None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Returns `train_steps` mapped over the devices; cached by its arguments.

  Args:
    stage: as in `train_step`.
    nets: as in `train_step`.
    tx: as in `train_step`.
    options: as in `train_step`.
    precision: as in `devices.mapped`.
    device: as in `devices.mapped`.
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
