"""Rehearses the checks of a visit to a GPU on a CPU."""

import json
import re

import main_job
import numpy as np
import pytest

from benchmarks.gpu import check
from benchmarks.gpu import commands
from benchmarks.gpu import shared_calls
from benchmarks.gpu import values
from benchmarks.gpu import visit as visit_lib

_CHECKS = {
  *(f'values of {name}' for name in values.NAMES),
  *(f'bfloat16 of {name}' for name in values.NAMES),
  'steps share a call, coarse',
  'steps share a call, class',
  'test config',
  'kill and resume',
  'load, predict, export',
  'predict a series',
}


@pytest.mark.long
def test_every_check_runs_and_passes(tmp_path, compiled):
  done, rows = main_job.visit(
    'check', tmp_path, '--tiny', '--seconds=900', **compiled
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = {row['check']: row for row in rows}
  assert len(found) == len(rows)
  assert found.keys() == _CHECKS
  assert all(row['ok'] is True for row in rows)
  # The difference is not 0, because the reference is another program.
  assert 0 < found['values of coarse']['gradient'] < 1e-3
  assert found['kill and resume']['exit_codes'] == [-9, 143]
  assert found['test config']['simulated'] is True
  assert found['predict a series']['points'] > 0
  assert len(done.stdout.splitlines()) < 100


class _NoCommands(commands.Commands):
  """Checks that pass and start no process."""

  def _pass(self):
    return {}

  test_config = kill_and_resume = load_predict_export = predict_series = _pass


@pytest.mark.slow
def test_checks_of_values_of_one_network(tmp_path, monkeypatch):
  """Starts no other processes; the long test above does."""
  monkeypatch.setattr(values, 'NAMES', ('class',))
  monkeypatch.setattr(shared_calls, 'STAGES', ('class',))
  monkeypatch.setattr(commands, 'Commands', _NoCommands)
  # The check sets these for its whole process.
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  monkeypatch.setattr(check.logging, 'set_verbosity', lambda _: None)
  visit = visit_lib.Visit(tmp_path, seconds=900, tiny=True)
  check.run(visit, None)
  rows = json.loads((tmp_path / 'check.json').read_text())['rows']
  found = {row['check']: row for row in rows}
  assert len(found) == len(rows)
  assert found.keys() == {x for x in _CHECKS if not re.search('coarse|fine', x)}
  assert all(row['ok'] is True for row in rows)
  # The difference is not 0, as in the long test.
  assert 0 < found['values of class']['gradient'] < 1e-3


def test_a_difference_above_rounding_fails(monkeypatch):
  compared = values.Values.__new__(values.Values)
  compared._variables, compared._card_values = {'coarse': {}}, {}
  cpu = {
    'evaluation': np.ones(4, np.float32),
    'loss': np.float32(1),
    'gradient': {'a': np.ones(4, np.float32)},
  }

  def check_with_error(error):
    card = {**cpu, 'gradient': {'a': cpu['gradient']['a'] * (1 + error)}}
    values_on = {'card': card, 'cpu': cpu}
    monkeypatch.setattr(
      compared, '_run', lambda name, dtype, where, *_: values_on[where]
    )
    return compared.check('coarse')

  assert check_with_error(2e-5)['ok'] is True
  wrong = check_with_error(1e-3)
  assert wrong['ok'] is False and wrong['worst_leaf'] == 'a'
  assert wrong['gradient'] == pytest.approx(1e-3, rel=1e-3)
  assert check_with_error(np.nan)['ok'] is False
