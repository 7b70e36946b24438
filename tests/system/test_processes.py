"""Finding the other processes; one process alone is a plain call.

What several processes do together is in `test_determinism`.
"""

import jax
import pytest

from mtnet_jax.system import errors
from mtnet_jax.system import processes


@pytest.mark.parametrize(
  ('coordinator', 'num_processes', 'process_id', 'says'),
  [
    ('', 2, None, '--num_processes need --coordinator=HOST:PORT'),
    ('', None, 0, '--process_id need --coordinator'),
    ('auto', 2, 0, '--num_processes and --process_id need --coordinator'),
    ('host:1234', None, None, 'needs --num_processes and --process_id'),
    ('host:1234', 2, None, 'needs --process_id'),
    ('host', 2, 0, 'must be HOST:PORT'),
    ('host:port', 2, 0, 'must be HOST:PORT'),
    (':1234', 2, 0, 'must be HOST:PORT'),
    ('host:1234', 2, 2, '--process_id=2 must be from 0 to 1'),
    ('host:1234', 2, -1, '--process_id=-1 must be from 0 to 1'),
  ],
)
def test_flags_that_do_not_belong_together(
  coordinator, num_processes, process_id, says
):
  with pytest.raises(errors.InputError) as error:
    processes.connect(
      coordinator, num_processes=num_processes, process_id=process_id
    )
  assert says in str(error.value)


def test_one_process_needs_no_connection():
  processes.connect('')
  assert processes.is_first()
  # The very object, not a copy.
  value = object()
  assert processes.gather(value) == [value]
  assert processes.on_first(lambda: value) is value


def test_one_process_raises_what_was_raised():
  def fail():
    raise KeyError('mine')

  with pytest.raises(KeyError, match='mine'):
    processes.on_first(fail)


def _fail(message):
  raise jax.errors.JaxRuntimeError(message)


def test_an_error_of_another_process_ends_this_one_with_a_line(
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
  said = capsys.readouterr().err
  assert said.startswith('error: another process of this run has ended')
  assert '(UNKNOWN: Connection closed by peer)' in said
  assert said.count('\n') == 1
  # What is this process's own stays what it is.
  with pytest.raises(jax.errors.JaxRuntimeError), processes.together():
    _fail('RESOURCE_EXHAUSTED: out of memory')
  monkeypatch.undo()
  with pytest.raises(jax.errors.JaxRuntimeError), processes.together():
    _fail('UNKNOWN: of the only process')
