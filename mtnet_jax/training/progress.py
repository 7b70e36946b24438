"""Reports the progress of a run while it trains.

An observer shows a progress bar with the remaining time, and writes
`train_log.csv` (a row per epoch) and TensorBoard files.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any
from typing import Protocol

import jax
import numpy as np
import tensorboardX
import tqdm

from mtnet_jax.storage import files
from mtnet_jax.training import stage as stage_lib

# Estimated hours of a stage from which a faster config is suggested.
_SLOW_HOURS = 1.0


class Training(Protocol):
  """What an observer reads of a `trainer.Trainer`."""

  stage: stage_lib.Stage
  steps_per_epoch: int
  total_steps: int
  learning_rates: np.ndarray


class Silent:
  """An observer that shows and writes nothing, for all but one process."""

  def start(
    self, trainer: Training, step: int, history: Sequence[Mapping[str, Any]]
  ) -> None:
    """Does nothing."""

  def step(self, step: int, loss: float) -> None:
    """Does nothing."""

  def timed(self, step_seconds: float) -> None:
    """Does nothing."""

  def epoch(
    self, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
  ) -> None:
    """Does nothing."""

  def finish(self) -> None:
    """Does nothing."""


class Observer:
  """Shows and logs the progress of the stages of one run.

  Args:
    workdir: the run directory.
    simulated: whether the CT is simulated; the bar and TensorBoard's tags show
      it.
    log_every: steps between updates of the shown loss.
    bar: a progress bar that several runs share. None for a bar for each stage
      and a printed line for each epoch.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    simulated: bool,
    log_every: int,
    bar: tqdm.tqdm | None = None,
  ):
    self._workdir = workdir
    self._shared_bar = bar
    self._simulated = simulated
    self._log_every = log_every
    self._histories: dict[str, Sequence[Mapping[str, Any]]] = {}
    # Both are made by `start`.
    self._writer: Any = None
    self._bar: Any = None

  def start(
    self, trainer: Training, step: int, history: Sequence[Mapping[str, Any]]
  ) -> None:
    """Notes that a stage starts, or is resumed.

    Args:
      trainer: of the stage.
      step: number of steps run before.
      history: a row for each epoch that was completed before.
    """
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
      # The shared bar counts only the steps that are still to be run.
      self._bar = self._shared_bar
      self._bar.total -= step
      return
    if step == trainer.total_steps:
      print(f'{name}: already trained for {trainer.stage.epochs} epochs.')
    elif step:
      print(f'{name}: resumes at step {step} of {trainer.total_steps}.')
    self._bar = tqdm.tqdm(
      total=trainer.total_steps,
      initial=step,
      desc=self._title,
      unit='step',
      dynamic_ncols=True,
      disable=step == trainer.total_steps,
    )

  def step(self, step: int, loss: float) -> None:
    """Notes that a step was run.

    Args:
      step: its number, from 1.
      loss: its loss.
    """
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

  def timed(self, step_seconds: float) -> None:
    """Notes how long a step takes; called once for each stage."""
    hours = step_seconds * (self._bar.total - self._bar.n) / 3600
    alone = self._shared_bar is None
    if alone and jax.default_backend() == 'cpu' and hours > _SLOW_HOURS:
      self._bar.write(
        f'No accelerator: at {step_seconds:.1f} s a step, the'
        f' {self._stage.name} stage alone takes about {hours:.0f} h. For a run'
        ' of minutes, use --config=configs/mtnet.py:demo. This run can be'
        ' stopped at any time; the same command resumes it.'
      )

  def epoch(
    self, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
  ) -> None:
    """Notes that an epoch has ended.

    Args:
      row: the epoch's row of train_log.csv.
      history: the rows of all epochs of the stage so far.
    """
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

  def finish(self) -> None:
    """Notes that the stage has ended."""
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
