"""The training loop, one for all stages.

The step is written per device with collectives over `parallel.AXIS` and wrapped
once by `jax.pmap`. Its random numbers follow from the seed, the step and the
example's place in the global batch, and the order of examples from the seed
and the epoch. So a run that was killed repeats itself exactly from its last
checkpoint, and the number of devices changes nothing but the order of sums.
"""

import dataclasses
import functools
import time
from typing import Any

from flax import struct
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from mtnet_jax import augment
from mtnet_jax import checkpoint
from mtnet_jax import errors
from mtnet_jax import inference
from mtnet_jax import input_pipeline
from mtnet_jax import metrics
from mtnet_jax import optim
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
  """What the step needs beside the stage; see `configs/mtnet.py`."""

  size: int
  window: tuple[float, float]
  coarse_mask: str
  augmentation: augment.Augmentation
  steps_per_epoch: int


def train_step(
    state, coarse_variables, data, batch, *, stage, coarse_net, tx, options
):
  """One step on one device.

  Args:
    state: `TrainState`.
    coarse_variables: of the frozen Coarse Seg-net; {} where not needed.
    data: the whole split: 'image' and 'mask' (N, P, P), 'label' (N,).
    batch: 'index' (b,) into data, 'look' (b,), of which 0 is the plain patch,
      'place' (b,) in the global batch, 'seed' ().
    stage, coarse_net, tx, options: static.

  Returns:
    The new state and {'loss': ()}, the mean over the global batch.
  """
  rng = jax.random.fold_in(jax.random.key(batch['seed']), state.step)
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
  dropout_rng = jax.random.fold_in(
      dropout_rng, lax.axis_index(parallel.AXIS)
  )

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
    loss = jnp.mean(stage.loss_fn(logits, targets))
    return loss, updates['batch_stats']

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
      steps_per_epoch=steps_per_epoch,
  )


class Trainer:
  """Trains one stage, from its last checkpoint if there is one.

  Args:
    stage: the `stages.Stage`.
    config: the run's config.
    nets: stage name -> network, as evaluation wants them.
    coarse_variables: best variables of the coarse stage, or None before it.
    train, validation: `input_pipeline.Nodules`.
    directory: of the stage's checkpoints.
  """

  def __init__(
      self,
      stage,
      config,
      *,
      nets,
      coarse_variables,
      train,
      validation,
      directory,
  ):
    devices = jax.local_device_count()
    if stage.batch_size % devices:
      raise errors.InputError(
          f'config.{stage.name}_stage.batch_size={stage.batch_size} does not divide'
          f' by {devices} devices: take a multiple of {devices}.'
      )
    self.stage = stage
    self._config = config
    self._seed = config.seed * len(stages.ORDER) + stages.ORDER.index(
        stage.name
    )
    if stage.task == 'classification':
      train, validation = train.labelled(), validation.labelled()
    self._train, self._validation = train, validation
    self._looks = config.looks_per_epoch
    self.steps_per_epoch = input_pipeline.steps_per_epoch(
        len(train), self._looks, stage.batch_size
    )
    self.total_steps = self.steps_per_epoch * stage.epochs
    self._checkpoints = checkpoint.Checkpoints(directory)
    self._tx = optim.make_optimizer(
        learning_rate=stage.learning_rate,
        schedule=stage.schedule,
        total_steps=self.total_steps,
    )
    self._coarse = coarse_variables
    self._predictor = inference.Predictor(
        nets,
        size=config.image_size,
        window=config.window,
        coarse_mask=config.coarse_mask,
        batch_size=config.eval_batch_size,
    )
    self._step = jax.pmap(
        functools.partial(
            train_step,
            stage=stage,
            coarse_net=nets['coarse'],
            tx=self._tx,
            options=step_options(
                config, steps_per_epoch=self.steps_per_epoch
            ),
        ),
        axis_name=parallel.AXIS,
        in_axes=(0, 0, 0, {'index': 0, 'look': 0, 'place': 0, 'seed': None}),
        donate_argnums=0,
    )

  def fresh_state(self):
    """The state before the first step, on the host."""
    started = self._coarse if self.stage.start_from else None
    variables = stages.init_variables(
        self.stage,
        jax.random.key(self._seed),
        size=self._config.image_size,
        started=started,
    )
    return TrainState(
        step=np.int32(0),
        params=variables['params'],
        batch_stats=variables['batch_stats'],
        opt_state=self._tx.init(variables['params']),
        loss_sum=np.float32(0),
    )

  def _batch(self, step):
    epoch, position = divmod(step, self.steps_per_epoch)
    if position == 0 or self._order is None:
      self._order = input_pipeline.epoch_order(
          len(self._train),
          looks=self._looks,
          batch_size=self.stage.batch_size,
          seed=(self._seed, epoch),
      )
    size = self.stage.batch_size
    index, look = self._order[position * size : (position + 1) * size].T
    batch = {'index': index, 'look': look, 'place': np.arange(size)}
    devices = jax.local_device_count()
    return {
        **{
            key: parallel.split(value.astype(np.int32), devices)
            for key, value in batch.items()
        },
        'seed': np.uint32(self._seed),
    }

  def place(self, state):
    """Puts the data, the coarse variables and a state on the devices."""
    self._order = None
    self._data = parallel.replicate(self._train.arrays())
    self._coarse_on_devices = parallel.replicate(
        self._coarse if self.stage.needs_coarse else {}
    )
    return parallel.replicate(state)

  def step(self, state, step):
    """Takes the step of that number; returns the state and {'loss'}."""
    return self._step(
        state, self._coarse_on_devices, self._data, self._batch(step)
    )

  def validate(self, variables):
    """The selection metric and its companions on the validation split."""
    trees = {self.stage.name: variables}
    if self.stage.needs_coarse:
      trees['coarse'] = self._coarse_on_devices
    outputs = self._predictor(trees, self._validation.image)
    if self.stage.task == 'segmentation':
      truth = self._validation.mask
      values = metrics.segmentation_metrics(
          outputs[self.stage.name][..., None] >= 0.5, truth[..., None]
      )
      return {key: float(np.nanmean(x)) for key, x in values.items()}
    return metrics.classification_metrics(
        outputs['class'], self._validation.label
    )

  def run(self, observer):
    """Trains to the end and returns the best epoch's variables.

    Args:
      observer: told of the progress; see `progress.Observer`.

    Returns:
      {'params': ..., 'batch_stats': ...} as NumPy arrays, and the history, a
      dict per epoch.
    """
    state, history = self.fresh_state(), []
    loaded = self._checkpoints.load_latest(state)
    if loaded is not None:
      state, meta = loaded
      history = meta['history']
    step = int(state.step)
    observer.start(self, step, history)
    if step < self.total_steps:
      self._loop(state, step, history, observer)
    observer.finish()
    variables, _ = self._checkpoints.load_best()
    return variables, history

  def _loop(self, state, step, history, observer):
    state = self.place(state)
    saved_at = epoch_started = time.monotonic()
    while step < self.total_steps:
      state, losses = self.step(state, step)
      step += 1
      observer.step(step, losses)
      ends_epoch = step % self.steps_per_epoch == 0
      if ends_epoch:
        row = self._end_epoch(state, step, history, epoch_started)
        observer.epoch(row, history)
        epoch_started = time.monotonic()
      minutes = (time.monotonic() - saved_at) / 60
      if ends_epoch or minutes > self._config.checkpoint_minutes:
        self._check_finite(state, step)
        self._checkpoints.save_latest(
            step, parallel.unreplicate(state), {'history': history}
        )
        saved_at = time.monotonic()

  def _check_finite(self, state, step):
    # A sum that was not finite once stays so: no step goes unseen.
    loss_sum = parallel.unreplicate(state.loss_sum)
    if not np.isfinite(loss_sum):
      raise errors.InputError(
          f"stage '{self.stage.name}': the loss was not finite at or before"
          f' step {step}. The last good checkpoint stays; lower'
          f' config.{self.stage.name}_stage.learning_rate.'
      )

  def _end_epoch(self, state, step, history, epoch_started):
    """Validates, appends to the history, and keeps the best variables."""
    self._check_finite(state, step)
    on_devices = {'params': state.params, 'batch_stats': state.batch_stats}
    loss = parallel.unreplicate(state.loss_sum) / self.steps_per_epoch
    row = {
        'stage': self.stage.name,
        'epoch': step // self.steps_per_epoch,
        'step': step,
        'loss': float(loss),
        **{f'val_{k}': v for k, v in self.validate(on_devices).items()},
    }
    select_by = f'val_{self.stage.select_by}'
    if not np.isfinite(row[select_by]):
      raise errors.InputError(
          f"stage '{self.stage.name}': {select_by} is undefined on the"
          f' {len(self._validation)} validation nodules (one class only?).'
      )
    best = max((past[select_by] for past in history), default=-np.inf)
    row['best'] = bool(row[select_by] > best)
    row['seconds'] = round(time.monotonic() - epoch_started, 1)
    history.append(row)
    if row['best']:
      self._checkpoints.save_best(
          step, parallel.unreplicate(on_devices), {'epoch': row['epoch']}
      )
    return row
