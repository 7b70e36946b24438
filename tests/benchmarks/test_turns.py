"""Tests that contestants run in their own processes and report errors."""

import contextlib
import os
import pathlib
import time

import pytest

from benchmarks import timing
from benchmarks import turns


def _note_process(path, *, name):
  """Returns a function that writes down the id of its process."""

  def note():
    with pathlib.Path(path).open('a') as file:
      file.write(f'{name} {os.getpid()}\n')

  return note


def test_contestants_take_turns_in_their_own_processes(tmp_path):
  notes = tmp_path / 'notes'
  contestants = {
    name: turns.Contestant(_note_process, notes, name=name) for name in 'ab'
  }
  with contextlib.ExitStack() as stack:
    for contestant in contestants.values():
      stack.callback(contestant.close)
      assert 0 < contestant.build_s < 60
    seconds = timing.in_turn(contestants, repeats=2)
  assert {name: len(values) for name, values in seconds.items()} == {
    'a': 2,
    'b': 2,
  }
  lines = notes.read_text().split('\n')[:-1]
  # The first round is a warm-up.
  assert [line.split()[0] for line in lines] == ['a', 'b'] * 3
  processes = {line.split()[1] for line in lines} | {str(os.getpid())}
  assert len(processes) == 3


def _refuse():
  raise ValueError('no such network')


def _fail_later():
  return _refuse


def test_errors_of_the_process_are_raised_here():
  contestant = turns.Contestant(_refuse)
  with pytest.raises(RuntimeError, match='ValueError: no such network'):
    contestant.ready()
  with pytest.raises(RuntimeError, match='exit status'):
    contestant.ready()
  contestant.close()
  contestant = turns.Contestant(_fail_later)
  with pytest.raises(RuntimeError, match='ValueError: no such network'):
    contestant()
  contestant.close()


def test_an_exit_of_the_process_raises():
  contestant = turns.Contestant(os._exit, 3)
  with pytest.raises(RuntimeError, match='exit status 3'):
    contestant.build_s  # noqa: B018
  contestant.close()


def test_a_contestant_that_is_still_building_is_killed():
  contestant = turns.Contestant(time.sleep, 600)
  assert not contestant.ready(timeout=0.1)
  start = time.monotonic()
  contestant.close()
  assert time.monotonic() - start < 60


class _Sleeper:
  """Counts its calls and waits; a wait sleeps."""

  def __init__(self):
    self._calls = self._waits = 0

  def __call__(self):
    self._calls += 1

  def wait(self):
    self._waits += 1
    time.sleep(0.2)

  def figures(self):
    return {'calls': self._calls, 'waits': self._waits}


def test_several_calls_wait_once():
  contestant = turns.Contestant(_Sleeper)
  assert 0.2 <= contestant.run(times=3) < 10
  assert contestant.figures() == {'calls': 3, 'waits': 1}
  with pytest.raises(TimeoutError):
    contestant.run(timeout=0.01)
  contestant.close(kill=True)


def test_no_figures_without_the_method(tmp_path):
  contestant = turns.Contestant(_note_process, tmp_path / 'a', name='a')
  assert contestant.figures() == {}
  contestant.close()
