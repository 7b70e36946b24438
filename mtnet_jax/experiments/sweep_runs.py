"""Trains the points of a sweep, one after another or one on each device.

Several processes can share a sweep. Each works on points that no other process
works on. Points that share a coarse net are trained by one process.
"""

from collections.abc import Collection
import concurrent.futures
import functools
import itertools
import os
import pathlib
import queue
import sys
import threading
import time
from typing import Any

import jax
import ml_collections
import tqdm

from mtnet_jax.data import choice
from mtnet_jax.data import feeding
from mtnet_jax.data import lidc
from mtnet_jax.evaluation import comparisons
from mtnet_jax.experiments import run as run_lib
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.experiments import sweep_report
from mtnet_jax.reports import commands
from mtnet_jax.reports import tables
from mtnet_jax.storage import files
from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from mtnet_jax.system import stopping
from mtnet_jax.training import check_config
from mtnet_jax.training import progress
from mtnet_jax.training import stages


class _StoppedError(Exception):
  """Ends a run because another device's run failed or Ctrl-C was pressed."""


def run(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str] = '',
  *,
  changed: Collection[str] | None = None,
) -> None:
  """Trains every point that is not finished, and writes the report.

  Args:
    config: of `configs/ablations.py` or `configs/baselines.py`.
    workdir: directory of the sweep; '' for runs/NAME-VARIANT.
    changed: keys of the config whose values differ from its file, see
      `configs.differences`.

  Raises:
    errors.InputError: a value of the config or the dataset cannot be used, or
      the directory belongs to another sweep, or was moved meanwhile.
  """
  if jax.process_count() > 1:
    raise errors.InputError(
      'the processes of a sweep are independent: remove --coordinator, and'
      ' start each of them with the same command.'
    )
  started = time.monotonic()
  plan = sweep_plan.points(config, changed=changed)
  variant = config.base.variant
  default = config.name if variant == 'mtnet' else f'{config.name}-{variant}'
  directory = pathlib.Path(paths.expand(workdir) or f'runs/{default}')
  groups = sweep_plan.groups(plan)
  devices = jax.local_devices()
  # With one group of points, or one device, each run uses all devices.
  devices = devices if len(devices) > 1 and len(groups) > 1 else [None]
  with jax.default_device(devices[0]):
    for point in plan:
      check_config.check_config(point.config)
  sweep_plan.claim(directory, config, plan)
  files.remove_leftovers(directory)
  check = functools.partial(
    _check, identity_lib.Place(directory, of='sweep'), directory, config, plan
  )
  say = _make_printer()
  plan = [
    point._replace(config=choice.choose_dataset(point.config, say=say))
    for point in plan
  ]
  _train(plan, directory, devices, say, check)
  check()
  missing = [point for point in plan if not _is_finished(directory, point)]
  if missing:
    print(
      f'\nOther processes still train {len(missing)} of {len(plan)} runs, such'
      f' as {missing[0].folder}. The last process writes the report. If it'
      ' stops before that, give the same command again.'
    )
    return
  try:
    with workdir_lib.lock(directory):
      text = sweep_report.write(directory, config, plan)
  except errors.BusyError:
    print(f'\nAnother process is writing {directory}/report.')
    return
  print(f'\n{text}\nReport: {directory}/report/index.html')
  if config.name in sum(comparisons.SWEEPS.values(), ()):
    reference = next(point for point in plan if point.name == config.reference)
    command = commands.report(directory / reference.folder, directory)
    print(f"To add these results to the paper's tables: {command}")
  elapsed = _format_minutes(time.monotonic() - started)
  print(f'{len(plan)} runs; this command took {elapsed}.')


def _check(place, directory, config, plan):
  """Checks that the directory still exists and belongs to this sweep."""
  place.check()
  sweep_plan.claim(directory, config, plan)


def _is_finished(directory, point):
  return (directory / point.folder / 'metrics.json').exists()


def _make_printer():
  """Returns a `print` that skips lines that it has already printed."""
  printed = set()

  def say(text=''):
    if text not in printed:
      printed.add(text)
      tqdm.tqdm.write(text, file=sys.stdout)

  return say


def _format_minutes(seconds):
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes} min {seconds} s'


def _train(plan, directory, devices, say, check):
  """Trains the points; those that share a coarse net one after another."""
  waiting = queue.SimpleQueue()
  for group in sweep_plan.groups(plan):
    waiting.put(group)
  sizes = _sizes(plan, say)
  steps = sum(
    _steps(point.config, sizes[_dataset_key(point.config)])
    for point in plan
    if not _is_finished(directory, point)
  )
  stop = threading.Event()
  completed = itertools.count(1)  # Numbers the points as they are completed.
  with tqdm.tqdm(
    total=steps,
    unit='step',
    dynamic_ncols=True,
    smoothing=0.05,
    disable=not steps,
  ) as bar:

    def work(device):
      with jax.default_device(device):
        while not stop.is_set():
          try:
            group = waiting.get_nowait()
          except queue.Empty:
            return
          try:
            _train_group(
              group, directory, bar, stop, completed, len(plan), check
            )
          except errors.BusyError:
            # The process that holds this point also trains the rest of the
            # group, because it has their coarse net.
            continue

    if len(devices) == 1:
      work(devices[0])
      return
    with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
      workers = [pool.submit(work, device) for device in devices]
      try:
        for worker in concurrent.futures.as_completed(workers):
          worker.result()
      except BaseException:
        stop.set()
        raise


def _train_group(group, directory, bar, stop, completed, num_points, check):
  previous = None  # The run directory whose coarse net the next run copies.
  for point in group:
    check()
    workdir = directory / point.folder
    before = time.monotonic()
    new = not _is_finished(directory, point)
    bar.set_description(point.folder)
    try:
      run_lib.run(
        point.config,
        workdir,
        observer=functools.partial(_Observer, bar=bar, stop=stop),
        say=lambda *_: None,
        changed=point.changed,
        before_training=functools.partial(_copy_coarse_stage, previous),
      )
    except errors.BusyError:
      raise
    except errors.InputError as error:
      raise errors.InputError(f'point {point.folder}: {error}') from error
    check()
    previous = workdir
    elapsed = (
      _format_minutes(time.monotonic() - before) if new else 'finished before'
    )
    summary = workdir_lib.read_metrics(workdir)['test']
    bar.write(
      f'{next(completed)}/{num_points} {point.folder}: {_in_short(summary)},'
      f' {elapsed}',
      file=sys.stdout,
    )


def _copy_coarse_stage(previous, workdir):
  if previous is not None:
    sweep_plan.copy_coarse_stage(previous, workdir)


def _in_short(summary):
  """Formats results, such as 'JA 71.2 (68.0-74.1), AUC 90.1 (85.0-93.2)'."""
  masks = summary['segmentation']
  mask = masks.get('fine', masks.get('coarse'))
  estimates = {
    'JA': mask and mask['jaccard'],
    'AUC': summary.get('classification', {}).get('auc'),
  }
  return ', '.join(
    f'{name} {tables.cell_text(estimate)}'
    for name, estimate in estimates.items()
    if estimate
  )


class _Observer(progress.Observer):
  """Advances the sweep's progress bar, and ends the run if the sweep ends."""

  def __init__(
    self, workdir: pathlib.Path, *, stop: threading.Event, **kwargs: Any
  ):
    super().__init__(workdir, **kwargs)
    self._stop = stop

  def step(self, step, loss):
    super().step(step, loss)
    # After SIGTERM every run saves its work and ends by itself.
    if self._stop.is_set() and not stopping.asked():
      raise _StoppedError


def _dataset_key(config):
  return config.dataset.to_json()


def _sizes(plan, say):
  """Returns dataset -> number of training nodules of each task.

  Builds a phantom dataset if it does not exist.
  """
  sizes = {}
  for point in plan:
    key = _dataset_key(point.config)
    if key not in sizes:
      train = lidc.load_for_training(point.config, say=say)['train']
      sizes[key] = {
        'segmentation': len(train),
        'classification': len(train.labelled()),
      }
  return sizes


def _steps(config, sizes):
  """Returns the number of training steps of a run."""
  return sum(
    stage.epochs
    * feeding.steps_per_epoch(
      sizes.get(stage.task, sizes['segmentation']),
      config.views_per_image,
      stage.batch_size,
    )
    for stage in stages.make_stages(config)
  )
