"""The checks of a visit to a GPU, rehearsed on a CPU."""

import main_job
import numpy as np
import pytest

from benchmarks.gpu import values

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


@pytest.mark.slow
def test_every_check_is_made_and_passes(tmp_path, compiled):
  done, rows = main_job.visit(
    'check', tmp_path, '--tiny', '--seconds=900', **compiled
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = {row['check']: row for row in rows}
  assert len(found) == len(rows)
  assert found.keys() == _CHECKS
  assert all(row['ok'] is True for row in rows)
  # The reference is another program, so that nothing is compared with itself.
  assert 0 < found['values of coarse']['gradient'] < 1e-3
  assert found['kill and resume']['exit_codes'] == [-9, 143]
  assert found['test config']['simulated'] is True
  assert found['predict a series']['points'] > 0
  assert len(done.stdout.splitlines()) < 100


def test_what_differs_by_more_than_a_rounding_fails(monkeypatch):
  compared = values.Values.__new__(values.Values)
  compared._variables, compared._found = {'coarse': {}}, {}
  cpu = {
    'evaluation': np.ones(4, np.float32),
    'loss': np.float32(1),
    'gradient': {'a': np.ones(4, np.float32)},
  }

  def check(by):
    card = {**cpu, 'gradient': {'a': cpu['gradient']['a'] * (1 + by)}}
    found = {'card': card, 'cpu': cpu}
    monkeypatch.setattr(
      compared, '_run', lambda name, dtype, where, *_: found[where]
    )
    return compared.check('coarse')

  assert check(2e-5)['ok'] is True
  wrong = check(1e-3)
  assert wrong['ok'] is False and wrong['worst_leaf'] == 'a'
  assert wrong['gradient'] == pytest.approx(1e-3, rel=1e-3)
  assert check(np.nan)['ok'] is False
