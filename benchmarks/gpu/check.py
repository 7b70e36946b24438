"""Part check: checks that this machine computes correct results.

Each check writes a row with the key `ok`. A failed check does not stop the
others; the part fails at its end if any check failed. The checks that run
commands of the project start other processes. Meanwhile this process compares
values.
"""

import concurrent.futures
import os
import pathlib
import tempfile
import threading
import time
import traceback

from absl import logging

from benchmarks.gpu import commands
from benchmarks.gpu import shared_calls
from benchmarks.gpu import values

# The longest time of each check on the card, in seconds. A check is skipped if
# it might not finish before the visit ends. A rehearsal has no such limits.
_TEST_CONFIG_S = 60
_VALUES_S = 40
_BFLOAT16_S = 30
_SHARED_CALLS_S = 30
_KILL_S = 60
_MODEL_S = 30
_SERIES_S = 30


class Checks:
  """Runs checks, records them, and remembers which of them failed.

  Args:
    visit: the `visit.Visit`.

  Attributes:
    failed: names of the checks that failed.
  """

  def __init__(self, visit):
    self._visit = visit
    # Checks run in several threads, and all of them write to one file.
    self._lock = threading.Lock()
    self.failed = []

  def run(self, name, seconds, check, *args):
    """Runs one check.

    Args:
      name: name of its row.
      seconds: the longest time it may take; it is skipped if less time remains.
      check: function that returns a dict of figures. 'ok' is True by default.
      *args: arguments of `check`.

    Returns:
      Whether the check passed.
    """
    if not self._visit.tiny and self._visit.remaining_s < seconds:
      self._record(check=name, skipped='no time')
      return False
    started = time.monotonic()
    try:
      figures = check(*args)
    except Exception as error:
      # The error is a result of this check; the other checks still run.
      traceback.print_exc()
      text = f'{type(error).__name__}: {error}'
      figures = {'ok': False, 'error': text[-900:]}
    figures = {'ok': True, **figures}
    if not figures['ok']:
      self.failed.append(name)
    elapsed = round(time.monotonic() - started, 1)
    self._record(check=name, **figures, seconds=elapsed)
    return figures['ok']

  def _record(self, **figures):
    with self._lock:
      self._visit.record('check', **figures)


def run(visit, config):
  """Runs all checks.

  Args:
    visit: the `visit.Visit`.
    config: config of the command; unused, because each check has its own.

  Raises:
    RuntimeError: a check failed.
  """
  del config
  # Orbax logs a dozen lines for each checkpoint.
  logging.set_verbosity(logging.ERROR)
  # Several processes share the card; by default JAX reserves most of its
  # memory.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  checks = Checks(visit)
  with tempfile.TemporaryDirectory() as folder:
    job = commands.Commands(folder, visit)
    with concurrent.futures.ThreadPoolExecutor() as pool:
      trained = pool.submit(
        checks.run, 'test config', _TEST_CONFIG_S, job.test_config
      )
      waiting = [
        pool.submit(_after, trained, checks, *check)
        for check in (
          ('kill and resume', _KILL_S, job.kill_and_resume),
          ('load, predict, export', _MODEL_S, job.load_predict_export),
          ('predict a series', _SERIES_S, job.predict_series),
        )
      ]
      _check_values(checks, visit, pathlib.Path(folder, 'shared'))
      for future in waiting:
        future.result()
  if checks.failed:
    raise RuntimeError(f'checks failed: {", ".join(checks.failed)}')


def _after(trained, checks, name, seconds, check):
  """Runs a check that needs a trained run, after the training."""
  if trained.result():
    checks.run(name, seconds, check)
  else:
    checks.run(name, seconds, _no_run)


def _no_run():
  return {
    'ok': False,
    'error': "the training failed: see the check 'test config'",
  }


def _check_values(checks, visit, folder):
  compared = values.Values(visit.tiny)
  try:
    for name in values.NAMES:
      checks.run(f'values of {name}', _VALUES_S, compared.check, name)
    for stage in shared_calls.STAGES:
      checks.run(
        f'steps share a call, {stage}',
        _SHARED_CALLS_S,
        shared_calls.check,
        stage,
        folder / stage,
        visit.tiny,
      )
    for name in values.NAMES:
      checks.run(
        f'bfloat16 of {name}', _BFLOAT16_S, compared.check_bfloat16, name
      )
  finally:
    compared.close()
