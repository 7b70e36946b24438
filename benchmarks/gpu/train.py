"""Part train: trains MT-Net at the paper's size until the visit ends.

It runs `mtnet_jax.main` in this process, in bfloat16 and with the schedule
'cosine'. --config.dtype and --config.coarse_stage.schedule (likewise for the
other stages) override these. Each stage trains for as many epochs as fit,
unless --config.coarse_stage.epochs (likewise) is set. The paper's results are
recorded beside ours for comparison only: the paper trains far longer.
"""

import os
import pathlib
import shutil
import tempfile
import time

from absl import flags
from absl import logging

from benchmarks.gpu import budget
from benchmarks.gpu import rehearsal
from mtnet_jax.data import choice
from mtnet_jax.data import lidc
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.experiments import run as run_lib
from mtnet_jax.reports import paper
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import compilation_cache
from mtnet_jax.training import progress

_STAGES = tuple(budget.SHARES)
# When only this much time remains, training stops and the best variables so far
# are evaluated.
_EVALUATION_S = 30
_TINY_EVALUATION_S = 5
_FILES = (
  'metrics.json',
  'records.csv',
  'train_log.csv',
  'config.json',
  'report/index.html',
)
_MAX_BYTES = 16 << 20


class _OutOfTimeError(Exception):
  """The visit is nearly over."""


def run(visit, config):
  """Trains, evaluates, and records the results.

  Args:
    visit: the `visit.Visit`; the run's small files are copied to its folder.
    config: config of the command; a rehearsal uses its own.
  """
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  compilation_cache.enable()
  # Orbax logs a dozen lines for each checkpoint.
  logging.set_verbosity(logging.ERROR)
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    config = choice.choose_dataset(_config_of(visit, config, folder))
    splits = lidc.load_for_training(config)
    visit.record(
      'train',
      dataset=config.dataset.name,
      simulated=splits['train'].simulated,
      **{f'{name}_nodules': len(data) for name, data in splits.items()},
    )
    _choose_epochs(visit, config, splits, folder / 'measured')
    workdir = folder / 'run'
    ahead = budget.Ahead(config, splits, folder / 'ahead')
    try:
      run_lib.run(
        config,
        workdir,
        observer=lambda *args, **kwargs: _Watch(visit, ahead, *args, **kwargs),
      )
      results = workdir_lib.read_metrics(workdir)
      simulated, test, complete = results['simulated'], results['test'], True
    except _OutOfTimeError:
      # There is no report, only the metrics of the best variables so far.
      simulated, complete = splits['train'].simulated, False
      test = _evaluate(config, workdir, splits)
    finally:
      ahead.close()
      _copy(workdir, visit.out)
    minutes = (time.monotonic() - started) / 60
    _record_results(visit, test, simulated, minutes, complete)


def _config_of(visit, config, folder):
  """Returns the config to train, unlocked."""
  data_dir = config.dataset.data_dir
  if visit.tiny:
    config = rehearsal.get_config()
    data_dir = data_dir or str(folder / 'data')
  config = config.copy_and_resolve_references().unlock()
  config.dataset.data_dir = data_dir
  if not _is_on_command_line('dtype'):
    config.dtype = 'bfloat16'
  for name in _STAGES:
    if not _is_on_command_line(f'{name}_stage.schedule'):
      config[f'{name}_stage'].schedule = 'cosine'
  return config


def _is_on_command_line(key):
  """Returns whether the command line has --config.KEY."""
  return f'config.{key}' in flags.FLAGS


def _choose_epochs(visit, config, splits, folder):
  """Sets the stages' epochs to as many as fit, unless the user set them."""
  chosen = {
    name: config[f'{name}_stage'].epochs
    for name in _STAGES
    if _is_on_command_line(f'{name}_stage.epochs')
  }
  if len(chosen) == len(_STAGES):
    return
  costs = budget.measure(config, splits, folder)
  for name in ('coarse', 'class'):
    visit.record(
      'train',
      measured=name,
      step_s=costs[name].step_s,
      epoch_s=costs[name].epoch_s,
      compile_s=costs[name].compile_s,
    )
  epochs = budget.epochs_for(
    costs,
    visit.remaining_s,
    max_epochs={name: config[f'{name}_stage'].epochs for name in _STAGES},
  )
  with config.unlocked():
    for name, value in {**epochs, **chosen}.items():
      config[f'{name}_stage'].epochs = value
  # The checkpoints in it take gigabytes at the paper's size.
  shutil.rmtree(folder)


class _Watch(progress.Observer):
  """Records each stage, and stops the run before the visit ends."""

  def __init__(self, visit, ahead, workdir, **kwargs):
    super().__init__(workdir, **kwargs)
    self._visit, self._ahead, self._workdir = visit, ahead, workdir
    self._reserve_s = _TINY_EVALUATION_S if visit.tiny else _EVALUATION_S

  def start(self, trainer, step, history):
    super().start(trainer, step, history)
    self._started = time.monotonic()
    self._first_step = self._step_s = None
    try:
      self._ahead.wait(
        trainer.stage.name, self._visit.remaining_s - self._reserve_s
      )
    except TimeoutError as error:
      raise _OutOfTimeError from error

  def step(self, step, loss):
    super().step(step, loss)
    if self._first_step is None:
      self._first_step = time.monotonic() - self._started
    if self._visit.remaining_s < self._reserve_s:
      raise _OutOfTimeError

  def timed(self, step_seconds):
    super().timed(step_seconds)
    self._step_s = step_seconds

  def epoch(self, row, history):
    super().epoch(row, history)
    # The log is kept even if this process is killed.
    _copy(self._workdir, self._visit.out)

  def finish(self):
    super().finish()
    name, stage = self._stage.name, self._stage
    history, select_by = self._histories[name], f'val_{stage.select_by}'
    figures = {}
    if history:
      best = max(history, key=lambda row: row[select_by])
      figures = {
        'best_epoch': best['epoch'],
        select_by: best[select_by],
        'epoch_s': min(row['seconds'] for row in history),
      }
      if 'val_dice' in best:
        figures['val_dice'] = best['val_dice']
    if self._step_s:
      figures['images_a_second'] = stage.batch_size / self._step_s
    self._visit.record(
      'train',
      stage=name,
      simulated=self._simulated,
      epochs=len(history),
      of_epochs=stage.epochs,
      seconds=round(time.monotonic() - self._started, 1),
      compile_s=round(self._first_step or 0, 1),
      step_s=self._step_s,
      **figures,
    )


def _evaluate(config, workdir, splits):
  """Returns the test metrics of an unfinished run's best variables.

  Raises:
    errors.InputError: a stage has no best epoch yet.
  """
  variables = workdir_lib.load_variables(workdir, _STAGES)
  test = splits['test']
  _, summary = scores.score(
    config,
    test,
    outputs_lib.predict(config, variables, test, progress=iter),
    diameter_model=scores.fit_diameter_only(splits['train']),
  )
  return summary


def _record_results(visit, test, simulated, minutes, complete):
  """Records a row per network, with the paper's results."""
  for name, metrics, printed in (
    ('coarse', test['segmentation']['coarse'], paper.COARSE_SEGMENTATION),
    ('fine', test['segmentation']['fine'], paper.FINE_SEGMENTATION),
    ('class', test['classification'], paper.CLASSIFICATION),
  ):
    visit.record(
      'train',
      test=name,
      simulated=simulated,
      complete=complete,
      nodules=test['nodules'],
      minutes=round(minutes, 1),
      **{key: metrics[key] for key in printed},
      paper=printed,
    )


def _copy(workdir, out):
  """Copies the small files of a run that exist."""
  for name in _FILES:
    path = workdir / name
    if path.exists() and path.stat().st_size <= _MAX_BYTES:
      shutil.copyfile(path, out / path.name)
