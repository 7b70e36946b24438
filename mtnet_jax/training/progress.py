"""What a run shows and writes while it trains.

A progress bar with ETA, `train_log.csv` (a row per epoch) and TensorBoard
files.
"""

import jax
import tensorboardX
import tqdm

from mtnet_jax.storage import files

_SLOW_HOURS = 1.0


class Silent:
  """An observer for processes that show and write nothing."""

  def start(self, trainer, step, history):
    pass

  def step(self, step, loss):
    pass

  def timed(self, step_seconds):
    pass

  def epoch(self, row, history):
    pass

  def finish(self):
    pass


class Observer:
  """Follows the stages of one run.

  Args:
    workdir: the run directory.
    simulated: whether CT is simulated; the bar and TensorBoard's tags show it.
    log_every: steps between updates of the shown loss.
    bar: of several runs, to update instead of showing a bar and a line per
      epoch; None to show them.
  """

  def __init__(self, workdir, *, simulated, log_every, bar=None):
    self._workdir = workdir
    self._shared_bar = bar
    self._simulated = simulated
    self._log_every = log_every
    self._histories = {}
    self._writer = None
    self._bar = None

  def start(self, trainer, step, history):
    """A stage starts or goes on at `step`."""
    name = trainer.stage.name
    self._stage, self._steps_per_epoch = trainer.stage, trainer.steps_per_epoch
    self._learning_rates = trainer.learning_rates
    self._title = f'{name} (SIMULATED)' if self._simulated else name
    self._histories[name] = history
    self._write_log()
    self._writer = tensorboardX.SummaryWriter(
      str(self._workdir / 'tb' / name), purge_step=step + 1
    )
    if self._shared_bar is not None:
      # It counts only the steps that are still to be run.
      self._bar = self._shared_bar
      self._bar.total -= step
      return
    if step == trainer.total_steps:
      print(f'{name}: already trained, {trainer.stage.epochs} epochs.')
    elif step:
      print(f'{name}: going on at step {step} of {trainer.total_steps}.')
    self._bar = tqdm.tqdm(
      total=trainer.total_steps,
      initial=step,
      desc=self._title,
      unit='step',
      dynamic_ncols=True,
      disable=step == trainer.total_steps,
    )

  def step(self, step, loss):
    """A step was run."""
    self._bar.update()
    if step % self._log_every == 0:
      if self._shared_bar is None:
        epoch = (step - 1) // self._steps_per_epoch + 1
        self._bar.set_postfix(
          epoch=f'{epoch}/{self._stage.epochs}', loss=f'{loss:.4f}'
        )
      self._writer.add_scalar(self._tag('loss'), loss, step)
      self._writer.add_scalar(
        self._tag('learning_rate'), self._learning_rates[step - 1], step
      )

  def timed(self, step_seconds):
    """The time of a step is known now."""
    hours = step_seconds * (self._bar.total - self._bar.n) / 3600
    alone = self._shared_bar is None
    if alone and jax.default_backend() == 'cpu' and hours > _SLOW_HOURS:
      self._bar.write(
        f'No accelerator: {step_seconds:.1f} s a step, so about {hours:.0f} h'
        f' for the {self._stage.name} stage alone. For a run of minutes take'
        ' --config=configs/mtnet.py:demo; this one can be'
        ' stopped at any time and goes on with the same command.'
      )

  def epoch(self, row, history):
    """An epoch ended."""
    self._histories[self._stage.name] = history
    select_by = f'val_{self._stage.select_by}'
    if self._shared_bar is None:
      self._bar.write(
        f'{self._title} epoch {row["epoch"]}: loss {row["loss"]:.4f},'
        f' {select_by} {row[select_by]:.4f}{" (best)" if row["best"] else ""}'
      )
    for key, value in row.items():
      if key.startswith('val_'):
        self._writer.add_scalar(self._tag(key), value, row['step'])
    self._write_log()

  def finish(self):
    """The stage ended."""
    if self._shared_bar is None:
      self._bar.close()
    self._writer.close()

  def _tag(self, key):
    return f'simulated/{key}' if self._simulated else key

  def _write_log(self):
    rows = [
      {**row, 'simulated': self._simulated}
      for history in self._histories.values()
      for row in history
    ]
    if rows:
      files.write_csv(self._workdir / 'train_log.csv', rows)
