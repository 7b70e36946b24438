"""Connecting to other processes, and calls in a single process.

`test_determinism` tests several processes that work together.
"""

import jax
import pytest

from mtnet_jax.system import errors
from mtnet_jax.system import processes


@pytest.mark.parametrize(
  ('coordinator', 'num_processes', 'process_id', 'message'),
  [
    ('', 2, None, '--num_processes: also give --coordinator=HOST:PORT'),
    ('', None, 0, '--process_id: also give --coordinator'),
    ('auto', 2, 0, '--num_processes and --process_id: also give --'),
    ('host:1234', None, None, 'needs --num_processes and --process_id'),
    ('host:1234', 2, None, 'needs --process_id'),
    ('host', 2, 0, 'must be HOST:PORT'),
    ('host:port', 2, 0, 'must be HOST:PORT'),
    (':1234', 2, 0, 'must be HOST:PORT'),
    ('host:1234', 2, 2, '--process_id=2 must be from 0 to 1'),
    ('host:1234', 2, -1, '--process_id=-1 must be from 0 to 1'),
  ],
)
def test_flags_that_contradict_each_other_are_refused(
  coordinator, num_processes, process_id, message
):
  with pytest.raises(errors.InputError) as error:
    processes.connect(
      coordinator, num_processes=num_processes, process_id=process_id
    )
  assert message in str(error.value)


def test_one_process_needs_no_connection():
  processes.connect('')
  assert processes.is_first()
  # The same object, not a copy.
  value = object()
  assert processes.gather(value) == [value]
  assert processes.on_first(lambda: value) is value


def test_one_process_raises_the_original_exception():
  def fail():
    raise KeyError('mine')

  with pytest.raises(KeyError, match='mine'):
    processes.on_first(fail)


def _fail(message):
  raise jax.errors.JaxRuntimeError(message)


def test_an_error_of_another_process_ends_this_one_with_one_line(
  monkeypatch, capsys
):
  class _EndedError(Exception):
    pass

  def end(code):
    raise _EndedError(code)

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(processes.os, '_exit', end)
  with pytest.raises(_EndedError, match='^1$'), processes.together():
    _fail('UNKNOWN: Connection closed by peer\nand more')
  printed = capsys.readouterr().err
  assert printed.startswith('error: another process of this run has ended')
  assert '(UNKNOWN: Connection closed by peer)' in printed
  assert printed.count('\n') == 1
  # An error of this process itself stays unchanged.
  with pytest.raises(jax.errors.JaxRuntimeError), processes.together():
    _fail('RESOURCE_EXHAUSTED: out of memory')
  monkeypatch.undo()
  with pytest.raises(jax.errors.JaxRuntimeError), processes.together():
    _fail('UNKNOWN: of the only process')
