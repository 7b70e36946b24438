"""Tests that a visit to a GPU records figures, and pauses other processes."""

import json
import pathlib
import subprocess
import sys
import time

import main_job
import pytest

from benchmarks.gpu import forms
from benchmarks.gpu import visit as visit_lib


def test_every_figure_is_written_immediately(tmp_path, capsys):
  visit = visit_lib.Visit(tmp_path / 'new', seconds=100, tiny=True)
  visit.record('speed', net='class', ms=1 / 3)
  path = tmp_path / 'new' / 'speed.json'
  assert len(json.loads(path.read_text())['rows']) == 1
  visit.record('speed', net='fine', ms=2.0)
  visit.record('check', ok=True)
  found = json.loads(path.read_text())
  assert [row['net'] for row in found['rows']] == ['class', 'fine']
  assert found['rows'][0]['ms'] == 1 / 3
  assert found['tiny'] is True
  assert {'date', 'device', 'jax', 'card'} <= found['environment'].keys()
  assert {file.name for file in path.parent.iterdir()} == {
    'speed.json',
    'check.json',
  }
  assert 'speed: net class, ms 0.3333' in capsys.readouterr().out


def test_elapsed_and_remaining_time(tmp_path, monkeypatch):
  now = [50.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  visit = visit_lib.Visit(tmp_path, seconds=100)
  now[0] += 30
  assert (visit.elapsed_s, visit.remaining_s) == (30, 70)


def _state(process):
  """Returns the state of a process; 'T' if it is stopped."""
  text = pathlib.Path(f'/proc/{process.pid}/stat').read_text()
  return text.rpartition(')')[2].split()[0]


@pytest.mark.skipif(sys.platform != 'linux', reason="reads Linux's /proc")
def test_other_processes_pause_while_something_is_timed(tmp_path, monkeypatch):
  monkeypatch.setattr(visit_lib, '_UNTIL_QUIET_S', 0.2)
  with subprocess.Popen(['sleep', '60'], start_new_session=True) as other:
    try:
      visit = visit_lib.Visit(tmp_path, seconds=100, pause=[other.pid])
      with pytest.raises(ValueError, match='timed'), visit.quiet():
        assert _state(other) == 'T'
        raise ValueError('timed')
      assert _state(other) != 'T'
    finally:
      other.kill()
  # A process that has ended need not pause.
  with visit.quiet():
    pass


def test_names_of_forms_and_moved_bytes():
  x, kernel, grad = forms._arrays((1, 8, 9, 16), stride=2)
  assert grad.shape == (1, 4, 5, 16) and kernel.shape == (3, 3, 1, 16)
  assert forms._bytes_moved('forward', x, grad) == 2 * 16 * (72 + 20)
  assert forms._bytes_moved('gradients', x, grad) == 2 * 16 * (72 + 20 + 72)
  assert forms._name(forms._Tile(1, 16, steps=14)) == (
    'kernel 1x16x64 steps 14 warps 4'
  )


@pytest.mark.slow
def test_every_form_computes_the_same(tmp_path, compiled):
  done, rows = main_job.visit(
    'forms', tmp_path, '--tiny', '--seconds=600', **compiled
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert [(row['what'], row['form']) for row in rows] == [
    ('forward', 'views'),
    ('forward', 'library'),
    ('forward', 'kernel 4x16x64 steps 1 warps 4'),
    ('forward', 'kernel 2x16x64 steps 1 warps 4'),
    ('gradients', 'views'),
    ('gradients', 'library'),
    ('gradients', 'kernel 1x16x64 steps 14 warps 4'),
    ('gradients', 'kernel 1x16x64 steps 14 warps 8'),
  ]
  for row in rows:
    # The relative rounding error of bfloat16 is at most 2 ** -9, and less on
    # average.
    assert 0 < row['error'] < 2**-8
    assert row['ms'] > 0


def test_a_failed_part_is_recorded(tmp_path, compiled):
  done, (row,) = main_job.visit(
    'train',
    tmp_path,
    '--seconds=60',
    '--config.dataset.name=lidc_nodules/paper',
    '--config.dataset.fallback=',
    f'--config.dataset.data_dir={tmp_path / "nothing"}',
    **compiled,
  )
  assert done.returncode != 0 and 'failed: train' in done.stderr
  assert 'was not built' in row['failed']
