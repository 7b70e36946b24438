"""Trains the points of a sweep, one after another or a device each.

Several processes can share a sweep: each takes points that no other one works
on, together with those that share their coarse net.
"""

import concurrent.futures
import functools
import itertools
import pathlib
import queue
import sys
import threading
import time

import jax
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
  """Another device's run failed, or somebody pressed Ctrl-C."""


def run(config, workdir='', *, changed=None):
  """Trains every point, unless it is trained, and writes the report.

  Args:
    config: of `configs/ablations.py` or `configs/baselines.py`.
    workdir: the sweep's directory; '' for runs/NAME-VARIANT.
    changed: keys of the config that are not as in its file, as in
      `configs.differences`.

  Raises:
    errors.InputError: something the user gave cannot be used.
  """
  if jax.process_count() > 1:
    raise errors.InputError(
      'the processes of a sweep are independent: leave --coordinator out, and'
      ' give each of them the same command.'
    )
  started = time.monotonic()
  plan = sweep_plan.points(config, changed=changed)
  variant = config.base.variant
  default = config.name if variant == 'mtnet' else f'{config.name}-{variant}'
  directory = pathlib.Path(paths.expand(workdir) or f'runs/{default}')
  groups = sweep_plan.groups(plan)
  devices = jax.local_devices()
  # One group of points, or one device: each run has all there is.
  devices = devices if len(devices) > 1 and len(groups) > 1 else [None]
  with jax.default_device(devices[0]):
    for point in plan:
      check_config.check_config(point.config)
  sweep_plan.claim(directory, config, plan)
  files.remove_leftovers(directory)
  check = functools.partial(
    _check, identity_lib.Place(directory, of='sweep'), directory, config, plan
  )
  say = _each_once()
  plan = [
    point._replace(config=choice.choose_dataset(point.config, say=say))
    for point in plan
  ]
  _train(plan, directory, devices, say, check)
  check()
  missing = [point for point in plan if not _is_finished(directory, point)]
  if missing:
    print(
      f"\n{len(missing)} of {len(plan)} runs are another process's, such as"
      f' {missing[0].folder}: the last process writes the report. If it ends'
      ' before that, give the same command again.'
    )
    return
  try:
    with workdir_lib.lock(directory):
      text = sweep_report.write(directory, config, plan)
  except errors.BusyError:
    print(f'\nAnother process writes {directory}/report.')
    return
  print(f'\n{text}\nReport: {directory}/report/index.html')
  if config.name in sum(comparisons.SWEEPS.values(), ()):
    reference = next(point for point in plan if point.name == config.reference)
    command = commands.report(directory / reference.folder, directory)
    print(f"In the paper's tables: {command}")
  print(f'{len(plan)} runs, {_minutes(time.monotonic() - started)} this time.')


def _check(place, directory, config, plan):
  """Checks that the directory is still there, and this sweep's."""
  place.check()
  sweep_plan.claim(directory, config, plan)


def _is_finished(directory, point):
  return (directory / point.folder / 'metrics.json').exists()


def _each_once():
  """A `print` that says nothing twice."""
  printed = set()

  def say(text=''):
    if text not in printed:
      printed.add(text)
      tqdm.tqdm.write(text, file=sys.stdout)

  return say


def _minutes(seconds):
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes} min {seconds} s'


def _train(plan, directory, devices, say, check):
  """Trains the points, those that can share a coarse net one after another."""
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
  numbers = itertools.count(1)
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
            _train_group(group, directory, bar, stop, numbers, len(plan), check)
          except errors.BusyError:
            # That process also trains the rest, which shares its coarse net.
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


def _train_group(group, directory, bar, stop, numbers, count, check):
  trained = None
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
        before_training=functools.partial(_take_over, trained),
      )
    except errors.BusyError:
      raise
    except errors.InputError as error:
      raise errors.InputError(f'point {point.folder}: {error}') from error
    check()
    trained = workdir
    elapsed = _minutes(time.monotonic() - before) if new else 'finished before'
    summary = workdir_lib.read_metrics(workdir)['test']
    bar.write(
      f'{next(numbers)}/{count} {point.folder}: {_in_short(summary)},'
      f' {elapsed}',
      file=sys.stdout,
    )


def _take_over(trained, workdir):
  if trained is not None:
    sweep_plan.copy_coarse_stage(trained, workdir)


def _in_short(summary):
  """'JA 71.2 (68.0-74.1), AUC 90.1 (85.0-93.2)'."""
  masks = summary['segmentation']
  mask = masks.get('fine', masks.get('coarse'))
  found = {
    'JA': mask and mask['jaccard'],
    'AUC': summary.get('classification', {}).get('auc'),
  }
  return ', '.join(
    f'{name} {tables.cell_text(estimate)}'
    for name, estimate in found.items()
    if estimate
  )


class _Observer(progress.Observer):
  """Moves the sweep's bar on, and ends the run where the sweep has ended."""

  def __init__(self, workdir, *, stop, **kwargs):
    super().__init__(workdir, **kwargs)
    self._stop = stop

  def step(self, step, loss):
    super().step(step, loss)
    # After SIGTERM every run ends by itself, once its work is saved.
    if self._stop.is_set() and not stopping.asked():
      raise _StoppedError


def _dataset_key(config):
  return config.dataset.to_json()


def _sizes(plan, say):
  """Dataset -> training nodules of each task; builds phantoms if need be."""
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
  """How many steps a run takes."""
  return sum(
    stage.epochs
    * feeding.steps_per_epoch(
      sizes.get(stage.task, sizes['segmentation']),
      config.views_per_image,
      stage.batch_size,
    )
    for stage in stages.make_stages(config)
  )
