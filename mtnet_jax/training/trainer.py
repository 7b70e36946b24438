"""The training loop, one for all stages.

The order of the examples follows from the seed and the epoch, and the random
numbers of a step from the seed and the step. A run that was killed therefore
repeats itself exactly from its last checkpoint. If there are several processes,
all of them run every step, and only the first reads and writes checkpoints.
"""

from collections.abc import Mapping
import pathlib
import time
from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

from flax import linen as nn
import jax
import ml_collections
import numpy as np

from mtnet_jax.data import feeding
from mtnet_jax.data import nodules
from mtnet_jax.models import predictor
from mtnet_jax.models import strategies
from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.system import devices
from mtnet_jax.system import errors
from mtnet_jax.system import processes
from mtnet_jax.system import stopping
from mtnet_jax.training import calls as calls_lib
from mtnet_jax.training import not_finite
from mtnet_jax.training import optim
from mtnet_jax.training import options
from mtnet_jax.training import stage as stage_lib
from mtnet_jax.training import start as start_lib
from mtnet_jax.training import step as step_lib
from mtnet_jax.training import validation as validation_lib

if TYPE_CHECKING:
  from mtnet_jax.training import progress


def _stoppable(batches):
  """Yields the batches; raises `stopping.Stopped` after SIGTERM."""
  for batch in batches:
    stopping.check()
    yield batch


class Trainer:
  """Trains one stage, from its last checkpoint if there is one.

  Args:
    stage: the stage.
    config: the run's config.
    nets: stage name -> network, built for evaluation (without `axis_name`).
    trained: stage name -> best variables of the stages before this one.
    train: the training split.
    validation: the validation split.
    directory: folder of the stage's checkpoints.
    load_weights: loads what the stage starts from, if it has no checkpoint; by
      default it starts from `trained` or from random values.
    identity: is checked before files are written; None for no checks.

  Attributes:
    stage: the stage.
    feed: the examples of its steps.
    steps_per_epoch, total_steps: steps of one epoch, and of all epochs.
    learning_rates: (total_steps,) the rate of each step.
  """

  def __init__(
    self,
    stage: stage_lib.Stage,
    config: ml_collections.ConfigDict,
    *,
    nets: Mapping[str, nn.Module],
    trained: Mapping[str, Any],
    train: nodules.Nodules,
    validation: nodules.Nodules,
    directory: pathlib.Path,
    load_weights: start_lib.LoadWeights | None = None,
    identity: identity_lib.Identity | None = None,
  ):
    self.stage = stage
    self._load_weights = load_weights
    self._config = config
    self._seed = strategies.stage_seed(config.seed, stage.name)
    if stage.task == 'classification':
      train, validation = train.labelled(), validation.labelled()
    self._train, self._validation = train, validation
    self.feed = feeding.Feeder(
      train,
      views=config.views_per_image,
      batch_size=stage.batch_size,
      seed=self._seed,
      max_bytes_on_device=feeding.MAX_BYTES_ON_DEVICE,
    )
    self.steps_per_epoch = self.feed.steps_per_epoch
    self.total_steps = self.steps_per_epoch * stage.epochs
    self._directory = directory
    # Seconds that a resumed epoch took before it was interrupted.
    self._epoch_seconds = 0.0
    self._epoch_started = time.monotonic()
    self._identity = identity
    self._checkpoints = None
    if processes.is_first():
      self._checkpoints = checkpoint.Checkpoints(directory, identity)
    schedule = {
      'learning_rate': stage.learning_rate,
      'schedule': stage.schedule,
      # A stage without epochs has no steps; a schedule needs one.
      'total_steps': max(1, self.total_steps),
    }
    self.learning_rates = optim.learning_rates(**schedule)
    self._tx = optim.make_optimizer(**schedule, weight_decay=stage.weight_decay)
    upstream_names = strategies.upstream_names(config.strategy, stage.name)
    self._trained = trained
    self._upstream = {name: trained[name] for name in upstream_names}
    self._predictor = predictor.Predictor(
      nets,
      batch_size=config.eval_batch_size,
      precision=config.matmul_precision,
      **predictor.options(config),
    )
    self._max_steps = calls_lib.max_steps(config)
    self._hyperparams = {
      'seed': np.uint32(self._seed),
      **options.loss_hyperparams(config),
    }
    self._steps = step_lib.mapped(
      stage=stage,
      nets=tuple((name, nets[name]) for name in upstream_names),
      tx=self._tx,
      options=options.step_options(
        config, steps_per_epoch=self.steps_per_epoch
      ),
      precision=config.matmul_precision,
      device=devices.only_device(),
    )

  def init_state(self) -> step_lib.TrainState:
    """Returns the state before the first step, as NumPy arrays."""
    start: dict[str, Any] = {}
    if self._load_weights is not None:
      weights = self._load_weights()
      start['started'] = weights.variables
      start['newly_initialised'] = weights.newly_initialised
    elif self.stage.starts_from:
      start['started'] = start_lib.inherited(self.stage, self._trained)
    return self._state_of(
      start_lib.init_variables(
        self.stage, self._seed, size=self._config.image_size, **start
      )
    )

  def _state_of(self, variables):
    return step_lib.TrainState(
      step=np.int32(0),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=optim.init_state(self._tx, variables['params']),
      loss_sum=np.float32(0),
      averaged=variables if self._config.weight_average else None,
    )

  def put_on_devices(self, state: step_lib.TrainState) -> step_lib.TrainState:
    """Puts the data, the upstream variables and the state on the devices."""
    self.feed.put_on_devices()
    self._upstream_on_devices = devices.replicate(self._upstream)
    return devices.replicate(state)

  def steps(
    self, state: step_lib.TrainState, step: int, *, num_steps: int = 1
  ) -> tuple[step_lib.TrainState, dict[str, jax.Array]]:
    """Runs `num_steps` steps, the first of which is `step`, counted from 0.

    Returns what `step.train_steps` does. The state is donated to the call: do
    not use it afterwards.
    """
    return self._steps(
      state,
      self._upstream_on_devices,
      *self.feed(step, num_steps=num_steps, max_steps=self._max_steps),
      np.int32(num_steps),
      self._hyperparams,
    )

  def validate(self, variables: Mapping[str, Any]) -> dict[str, float]:
    """Computes `validation.selection_metrics` of the stage's variables."""
    outputs = self._predictor(
      {**self._upstream_on_devices, self.stage.name: variables},
      self._validation.image,
      progress=_stoppable,
    )
    return validation_lib.selection_metrics(
      self.stage, outputs, self._validation
    )

  def run(
    self, observer: 'progress.Observer | progress.Silent'
  ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trains to the end and returns the best epoch's variables.

    Args:
      observer: is notified of the progress.

    Returns:
      {'params': ..., 'batch_stats': ...} as NumPy arrays, and the history: a
      row of train_log.csv for each epoch.

    Raises:
      errors.InputError: a checkpoint cannot be used, a step is not finite, or
        another run directory has replaced this one.
      stopping.Stopped: after SIGTERM, with the state saved.
    """
    if not self.stage.epochs:
      return processes.on_first(self._kept_variables), []
    # The first process's state is used even without a checkpoint, since initial
    # states that other processors round differently would stay different.
    state, history = processes.on_first(self._starting_state)
    step = int(state.step)
    self._check_identity()
    observer.start(self, step, history)
    try:
      if len(history) < self.stage.epochs:
        # Reusing the name lets the host's copy be freed.
        state = self.put_on_devices(state)
        self._loop(state, step, history, observer)
    finally:
      stopping.release()
      observer.finish()
    return processes.on_first(lambda: self._best_variables(history)), history

  def _starting_state(self):
    shapes = start_lib.shapes(self.stage, size=self._config.image_size)
    loaded = self._checkpoints.load_latest(
      jax.eval_shape(self._state_of, shapes)
    )
    if loaded is None:
      return self.init_state(), []
    state, meta = loaded
    self._checkpoints.check_best(meta['history'])
    self._epoch_seconds = meta.get('epoch_seconds', 0.0)
    return state, meta['history']

  def _check_identity(self):
    # Called before every write: another run may have replaced the directory.
    if self._identity:
      self._identity.check()

  def _best_variables(self, history):
    best = self._checkpoints.load_best(history)
    if best is None:
      raise errors.InputError(
        f'{self._directory}: no epoch is the best one. Delete the folder to'
        ' train the stage again.'
      )
    return best[0]

  def _kept_variables(self):
    """Returns the variables of a stage without epochs, saved on first use."""
    best = self._checkpoints.load_best()
    if best is None:
      self._checkpoints.save_best(
        0, self._load_weights().variables, {'epoch': 0}
      )
      best = self._checkpoints.load_best()
    return best[0]

  def _loop(self, state, step, history, observer):
    calls = calls_lib.Calls(
      self.steps,
      pace=calls_lib.Pace(self._config),
      observer=observer,
      on_not_finite=self._stop_at,
    )
    saved_at = time.monotonic()
    self._epoch_started = saved_at - self._epoch_seconds
    try:
      while len(history) < self.stage.epochs:
        # 0 if the run was stopped between an epoch's steps and its validation.
        remaining = (len(history) + 1) * self.steps_per_epoch - step
        if remaining:
          state, num_steps = calls.dispatch(state, step, remaining)
          step += num_steps
        minutes = (time.monotonic() - saved_at) / 60
        if not remaining or minutes > self._config.checkpoint_minutes:
          calls.wait()
          if not remaining:
            row = self._end_epoch(state, step, history)
            self._check_identity()
            observer.epoch(row, history)
            self._epoch_started = time.monotonic()
          self._save(state, step, history)
          saved_at = time.monotonic()
        stopping.check()
    except stopping.Stopped:
      # Without unsaved steps the state is on disk already, and its arrays may
      # have been donated to a call that the signal interrupted.
      if stopping.holds():
        calls.wait()
        self._save(state, step, history)
      raise

  def _save(self, state, step, history):
    if self._checkpoints:
      seconds = time.monotonic() - self._epoch_started
      self._checkpoints.save_latest(
        step,
        devices.unreplicate(state),
        {'history': history, 'epoch_seconds': seconds},
      )
    stopping.release(
      f'at step {step} of {self.total_steps} of stage {self.stage.name!r}'
    )

  def _stop_at(self, step: int, loss: float) -> NoReturn:
    """Writes the nodules of a step that is not finite, and ends the run."""
    self._check_identity()
    path = pathlib.Path(self._directory, not_finite.FILE)
    what: dict[str, Any] = {'stage': self.stage, 'step': step, 'loss': loss}
    if processes.is_first():
      order = self.feed.order_of(step - 1)
      not_finite.write(path, data=self._train, order=order, **what)
    raise not_finite.error(path, **what)

  def _end_epoch(self, state, step, history):
    """Validates, appends to the history, and saves the variables if best."""
    on_devices = state.variables
    loss = devices.unreplicate(state.loss_sum) / self.steps_per_epoch
    row = {
      'stage': self.stage.name,
      'epoch': step // self.steps_per_epoch,
      'step': step,
      'loss': float(loss),
      'learning_rate': float(self.learning_rates[step - 1]),
      **{f'val_{k}': v for k, v in self.validate(on_devices).items()},
    }
    select_by = f'val_{self.stage.select_by}'
    best = max((past[select_by] for past in history), default=-np.inf)
    row['best'] = bool(row[select_by] > best)
    row['seconds'] = round(time.monotonic() - self._epoch_started, 1)
    history.append(row)
    if row['best'] and self._checkpoints:
      self._checkpoints.save_best(
        step, devices.unreplicate(on_devices), {'epoch': row['epoch']}
      )
    return row
