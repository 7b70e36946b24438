"""The training loop, one for all stages.

Which example comes when follows from the seed and the epoch, and the step's
random numbers from the seed and the step: a run that was killed repeats itself
exactly from its last checkpoint. Of several processes all run every step, and
only the first reads and writes checkpoints.
"""

import pathlib
import time

import jax
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import feeding
from mtnet_jax.models import predictor
from mtnet_jax.models import strategies
from mtnet_jax.storage import checkpoint
from mtnet_jax.system import devices
from mtnet_jax.system import errors
from mtnet_jax.system import processes
from mtnet_jax.system import stopping
from mtnet_jax.training import calls as calls_lib
from mtnet_jax.training import not_finite
from mtnet_jax.training import optim
from mtnet_jax.training import start as start_lib
from mtnet_jax.training import step as step_lib


def _stoppable(batches):
  for batch in batches:
    stopping.check()
    yield batch


class Trainer:
  """Trains one stage, from its last checkpoint if there is one.

  Args:
    stage: the `stages.Stage`.
    config: the run's config.
    nets: stage name -> network, as evaluation wants them.
    trained: stage name -> best variables, of the stages before this one.
    train, validation: `nodules.Nodules`.
    directory: of the stage's checkpoints.
    load_weights: () -> `start.Start` or `load.Weights` to start from, or None.
      Called only if there is no checkpoint.
    identity: `identity.Identity` of the run, or None.

  Attributes:
    stage: the same.
    feed: `feeding.Feeder` of its steps.
    steps_per_epoch, total_steps: of the stage.
    learning_rates: (total_steps,) of its steps.
  """

  def __init__(
    self,
    stage,
    config,
    *,
    nets,
    trained,
    train,
    validation,
    directory,
    load_weights=None,
    identity=None,
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
    # What the epoch that a run resumes in took before, in seconds.
    self._epoch_seconds = 0.0
    self._epoch_started = time.monotonic()
    self._identity = identity
    self._checkpoints = None
    if processes.is_first():
      self._checkpoints = checkpoint.Checkpoints(directory, identity)
    schedule = {
      'learning_rate': stage.learning_rate,
      'schedule': stage.schedule,
      # A stage that is kept as it is has none, and no schedule is so short.
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
      **step_lib.loss_hyperparams(config),
    }
    self._steps = step_lib.mapped(
      stage=stage,
      nets=tuple((name, nets[name]) for name in upstream_names),
      tx=self._tx,
      options=step_lib.step_options(
        config, steps_per_epoch=self.steps_per_epoch
      ),
      precision=config.matmul_precision,
      device=devices.only_device(),
    )

  def init_state(self):
    """The state before the first step."""
    start = {}
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

  def put_on_devices(self, state):
    """Puts the data, the upstream variables and a state on the devices."""
    self.feed.put_on_devices()
    self._upstream_on_devices = devices.replicate(self._upstream)
    return devices.replicate(state)

  def steps(self, state, step, *, num_steps=1):
    """Runs `num_steps` steps, from that one on; see `step.train_steps`."""
    return self._steps(
      state,
      self._upstream_on_devices,
      *self.feed(step, num_steps=num_steps, max_steps=self._max_steps),
      np.int32(num_steps),
      self._hyperparams,
    )

  def validate(self, variables):
    """The selection metric and its companions on the validation split.

    A stage that learns both tasks is selected by the mean of the final mask's
    Jaccard index and the AUC.
    """
    outputs = self._predictor(
      {**self._upstream_on_devices, self.stage.name: variables},
      self._validation.image,
      progress=_stoppable,
    )
    if self.stage.task == 'segmentation':
      return self._segmented(outputs[self.stage.name])
    classified = self._classified(outputs['class'])
    if self.stage.task == 'classification':
      return classified
    segmented = self._segmented(outputs['fine'])
    return {
      'jaccard_and_auc': (segmented['jaccard'] + classified['auc']) / 2,
      **segmented,
      **{f'class_{key}': value for key, value in classified.items()},
    }

  def _segmented(self, probs):
    values = metrics.segmentation_metrics(
      probs[..., None] >= metrics.THRESHOLD, self._validation.mask[..., None]
    )
    return {key: float(np.nanmean(x)) for key, x in values.items()}

  def _classified(self, probs):
    labels = self._validation.label
    return metrics.classification_metrics(
      probs[labels >= 0], labels[labels >= 0]
    )

  def run(self, observer):
    """Trains to the end and returns the best epoch's variables.

    Args:
      observer: `progress.Observer`, or `progress.Silent`.

    Returns:
      {'params': ..., 'batch_stats': ...} as NumPy arrays, and the history, a
      dict per epoch.
    """
    if not self.stage.epochs:
      return processes.on_first(self._kept_variables), []
    # All start from the first process's state, even without a checkpoint: other
    # processors may round differently, and the difference would stay.
    state, history = processes.on_first(self._starting_state)
    step = int(state.step)
    self._check_identity()
    observer.start(self, step, history)
    try:
      if len(history) < self.stage.epochs:
        # The name is reused so that the host's copy can be freed.
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
    # Before anything is written: another run may be in the place of this one.
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
    """Of a stage of no epochs: those of the model that the run starts from."""
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
        # Also 0 where a run resumes after the last step of an epoch that was
        # not validated before it stopped.
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
      # Otherwise the state is on disk, and its arrays may be gone with a call
      # that was being dispatched when the signal came.
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

  def _stop_at(self, step, loss):
    """Writes the nodules of a step that is not finite, and ends the run."""
    self._check_identity()
    path = pathlib.Path(self._directory, not_finite.FILE)
    what = {'stage': self.stage, 'step': step, 'loss': loss}
    if processes.is_first():
      order = self.feed.order_of(step - 1)
      not_finite.write(path, data=self._train, order=order, **what)
    raise not_finite.error(path, **what)

  def _end_epoch(self, state, step, history):
    """Validates, appends to the history, and keeps the best variables."""
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
