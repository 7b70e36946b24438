"""Checks that run the project's commands on this device, as a user does."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

from benchmarks.gpu import shared_calls

_ROOT = pathlib.Path(__file__).parents[2]
_STAGES = ('coarse', 'class', 'fine')
_PATIENT = 'LIDC-IDRI-0220'
_PATCHES = 8
# Another program may round differently, by the first bound at most. If rounding
# moves pixels of the coarse mask across 0.5, the networks downstream have
# another input; then at most `_MAX_FLIPPED` of the pixels may move, and the
# second bound holds for mean differences.
_MAX_DIFFERENCE = 1e-4
_MAX_MEAN_DIFFERENCE = 1e-3
_MAX_FLIPPED = 1e-3
# About how long a second try of `kill_and_resume` takes.
_SECOND_TRY_S = 75
# Time at the end of a visit that no process may use.
_LAST_SECONDS = 4
_DETERMINISTIC = '--xla_gpu_deterministic_ops=true'


class Commands:
  """Checks that start processes.

  Args:
    folder: folder for datasets and runs.
    visit: the `visit.Visit`; every process is stopped before it ends.
  """

  def __init__(self, folder, visit):
    self._folder = pathlib.Path(folder)
    self._visit = visit
    self._data_dir = self._folder / 'data'
    self._run_dir = self._folder / 'run'

  def test_config(self):
    """Runs the main job at test size, from phantoms to the report."""
    self._finish(self._start_training(self._run_dir))
    metrics = json.loads((self._run_dir / 'metrics.json').read_text())
    page = self._run_dir / 'report' / 'index.html'
    return {
      'ok': metrics['simulated'] is True and page.stat().st_size > 0,
      'simulated': metrics['simulated'],
      'dice': _value(metrics['test']['segmentation']['fine']['dice']),
      'auc': _value(metrics['test']['classification']['auc']),
    }

  def kill_and_resume(self):
    """Checks that an interrupted run equals an undisturbed one bit for bit.

    The run is killed in one stage, terminated in the next, and resumed. If the
    result differs, the check is repeated with XLA's deterministic operations.
    """
    first = self._interrupted(self._run_dir, self._folder / 'killed')
    if first['ok'] or self._visit.remaining_s < _SECOND_TRY_S:
      return first
    flags = f'{os.environ.get("XLA_FLAGS", "")} {_DETERMINISTIC}'.strip()
    undisturbed = self._folder / 'deterministic'
    self._finish(self._start_training(undisturbed, XLA_FLAGS=flags))
    second = self._interrupted(
      undisturbed, self._folder / 'deterministic_killed', XLA_FLAGS=flags
    )
    return {
      **first,
      'ok': second['ok'],
      **{f'deterministic_{key}': value for key, value in second.items()},
    }

  def _interrupted(self, undisturbed, workdir, **env):
    # A checkpoint after every call, so that the run resumes within an epoch.
    flag = '--config.checkpoint_minutes=0'
    killed = self._signal_in(
      'class', signal.SIGKILL, self._start_training(workdir, flag, **env)
    )
    stopped = self._signal_in(
      'fine', signal.SIGTERM, self._start_training(workdir, flag, **env)
    )
    self._finish(self._start_training(workdir, flag, **env))
    difference = max(
      shared_calls.largest_difference(_best(undisturbed, x), _best(workdir, x))
      for x in _STAGES
    )
    same = {
      name: (undisturbed / name).read_bytes() == (workdir / name).read_bytes()
      for name in ('metrics.json', 'records.csv')
    }
    same['losses'] = _losses(undisturbed) == _losses(workdir)
    codes = (killed, stopped) == (-signal.SIGKILL, 128 + signal.SIGTERM)
    return {
      'ok': difference == 0 and all(same.values()) and codes,
      'largest_difference': difference,
      'same': same,
      'exit_codes': [killed, stopped],
    }

  def _signal_in(self, stage, which, process):
    """Sends a signal after a stage's first checkpoint; returns exit code."""
    latest = process.workdir / 'checkpoints' / stage / 'latest'
    while not any(x.name.isdigit() for x in latest.glob('*')):
      if process.poll() is not None:
        raise RuntimeError(
          f'the process ended before {stage}: {process.output_tail()}'
        )
      if self._visit.remaining_s < _LAST_SECONDS:
        process.kill()
        raise TimeoutError(f'no checkpoint of {stage}: {process.output_tail()}')
      time.sleep(0.002)
    process.send_signal(which)
    return process.wait(timeout=max(self._visit.remaining_s, 1))

  def load_predict_export(self):
    """Checks that an exported model predicts as the trained model does."""
    import mtnet_jax
    from mtnet_jax.data import lidc

    nodules = lidc.load_split(
      'lidc_nodules/phantom',
      'test',
      data_dir=str(self._data_dir),
      limit=_PATCHES,
    )
    model = mtnet_jax.load(self._run_dir)
    answer = model.predict(nodules.image, nodules.info['pixel_spacing_mm'])
    patches, exported = self._folder / 'patches.npz', self._folder / 'exported'
    np.savez(
      patches, hu=nodules.image, spacing=nodules.info['pixel_spacing_mm']
    )
    self._run(
      'mtnet_jax.export', f'--checkpoint={self._run_dir}', f'--out={exported}'
    )
    figures, ok = {}, True
    for where, env in (('here', {}), ('on_cpu', {'JAX_PLATFORMS': 'cpu'})):
      out = self._folder / f'{where}.npz'
      self._run('benchmarks.gpu.exported', exported, patches, out, **env)
      with np.load(out) as exported_answer:
        differences = _differences(exported_answer, answer)
      figures |= {f'{where}_{key}': x for key, x in differences.items()}
      ok = ok and _is_close(differences)
    return {'ok': ok, **figures}

  def predict_series(self):
    """Runs the command that segments nodules of a (SIMULATED) DICOM series."""
    series, out = self._folder / 'series', self._folder / 'predicted'
    self._run(
      'tfds_lidc.phantom',
      f'--write_dicom={series}',
      f'--patients={_PATIENT}',
    )
    self._run(
      'mtnet_jax.predict',
      f'--checkpoint={self._run_dir}',
      f'--dicom={series}',
      '--annotated',
      f'--out={out}',
    )
    found = json.loads((out / 'predictions.json').read_text())
    return {
      'ok': bool(found['points'])
      and not found['failed']
      and (out / 'segmentation.dcm').exists(),
      'points': len(found['points']),
    }

  def _start_training(self, workdir, *flags, **env):
    return self._start(
      'mtnet_jax.main',
      f'--config={_ROOT}/configs/mtnet.py:test',
      f'--workdir={workdir}',
      f'--config.dataset.data_dir={self._data_dir}',
      *flags,
      workdir=workdir,
      **env,
    )

  def _run(self, *arguments, **env):
    self._finish(self._start(*arguments, **env))

  def _start(self, module, *arguments, workdir=None, **env):
    # One log file per process.
    logs = self._folder / 'logs'
    logs.mkdir(exist_ok=True)
    log = logs / f'{module}-{time.monotonic_ns()}'
    return _Process(
      [sys.executable, '-m', module, *map(str, arguments)],
      log=log,
      workdir=workdir,
      env=env,
    )

  def _finish(self, process):
    """Waits for a process.

    Raises:
      RuntimeError: the process failed.
      TimeoutError: the visit is nearly over.
    """
    try:
      code = process.wait(
        timeout=max(self._visit.remaining_s - _LAST_SECONDS, 1)
      )
    except subprocess.TimeoutExpired as error:
      process.kill()
      raise TimeoutError(f'no time left: {process.output_tail()}') from error
    if code:
      raise RuntimeError(f'exit code {code}: {process.output_tail()}')


class _Process(subprocess.Popen):
  """A command whose output goes to a file."""

  def __init__(self, command, *, log, workdir, env):
    self._log, self.workdir = log, workdir
    paths = [str(_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {
      **os.environ,
      'PYTHONPATH': os.pathsep.join(paths),
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
      # Small programs also come from the cache of earlier processes. If they
      # were compiled again, autotuning might choose kernels that round
      # differently.
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      **env,
    }
    with open(log, 'wb') as file:
      super().__init__(
        command, cwd=_ROOT, env=environment, stdout=file, stderr=file
      )

  def output_tail(self):
    """Returns the last 800 characters of its output."""
    return self._log.read_text(errors='replace')[-800:]


def _value(estimate):
  return estimate['value'] if isinstance(estimate, dict) else estimate


def _best(workdir, stage):
  from mtnet_jax.storage import checkpoint

  directory = workdir / 'checkpoints' / stage
  return checkpoint.Checkpoints(directory).load_best()[0]


def _losses(workdir):
  with open(workdir / 'train_log.csv', newline='') as file:
    return [
      (row['stage'], row['epoch'], row['loss']) for row in csv.DictReader(file)
    ]


def _differences(found, answer):
  """Returns how an exported program's answer differs from the model's."""
  probabilities = {
    key: np.abs(found[key] - getattr(answer, key))
    for key in ('probability', 'malignancy')
  }
  flipped = found['coarse_mask'] != answer.coarse_mask
  return {
    **{key: float(x.max()) for key, x in probabilities.items()},
    **{f'mean_{key}': float(x.mean()) for key, x in probabilities.items()},
    'flipped': float(flipped.mean()),
  }


def _is_close(differences):
  bound, prefix = _MAX_DIFFERENCE, ''
  if differences['flipped']:
    bound, prefix = _MAX_MEAN_DIFFERENCE, 'mean_'
  return differences['flipped'] <= _MAX_FLIPPED and all(
    differences[f'{prefix}{key}'] <= bound
    for key in ('probability', 'malignancy')
  )
