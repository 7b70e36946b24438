"""Contestants run in processes of their own, and say what went wrong there."""

import contextlib
import os
import pathlib

import pytest

from benchmarks import timing
from benchmarks import turns


def _note_process(path, *, name):
  """A function that notes in which process it runs."""

  def note():
    with pathlib.Path(path).open('a') as file:
      file.write(f'{name} {os.getpid()}\n')

  return note


def test_they_take_turns_in_processes_of_their_own(tmp_path):
  notes = tmp_path / 'notes'
  found = {
    name: turns.Contestant(_note_process, notes, name=name) for name in 'ab'
  }
  with contextlib.ExitStack() as stack:
    for contestant in found.values():
      stack.callback(contestant.close)
      assert 0 < contestant.build_s < 60
    seconds = timing.in_turn(found, repeats=2)
  assert {name: len(taken) for name, taken in seconds.items()} == {
    'a': 2,
    'b': 2,
  }
  lines = notes.read_text().split('\n')[:-1]
  # One round warms up.
  assert [line.split()[0] for line in lines] == ['a', 'b'] * 3
  processes = {line.split()[1] for line in lines} | {str(os.getpid())}
  assert len(processes) == 3


def _refuse():
  raise ValueError('no such network')


def _fail_later():
  return _refuse


def test_what_fails_there_is_said_here():
  with pytest.raises(RuntimeError, match='ValueError: no such network'):
    turns.Contestant(_refuse)
  contestant = turns.Contestant(_fail_later)
  with pytest.raises(RuntimeError, match='ValueError: no such network'):
    contestant()
  contestant.close()


def test_an_end_without_a_word_is_an_error():
  with pytest.raises(RuntimeError, match='exit status 3'):
    turns.Contestant(os._exit, 3)
