"""Errors that the user can fix, and how a command shows them."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import io
import os
import sys
import traceback
from typing import Any
from typing import NoReturn


class InputError(ValueError):
  """An input cannot be used. The message says which, why, and what to do."""


class BusyError(InputError):
  """Another process is using a file or folder."""


@contextlib.contextmanager
def translated(kind: type[Exception]) -> Iterator[None]:
  """Turns exceptions of another package into `InputError`s.

  Args:
    kind: class of the exceptions. Their messages are kept, so they must be
      meant for users.
  """
  try:
    yield
  except kind as error:
    raise InputError(str(error)) from error


@contextlib.contextmanager
def of_wrong_values(problem: str, *, way_out: str) -> Iterator[None]:
  """Turns exceptions that unexpected values cause into `InputError`s.

  This is for code that uses values of files that anyone may have written.

  Args:
    problem: begins the message: which file cannot be used.
    way_out: ends the message: what the user can do.
  """
  try:
    yield
  except InputError:
    raise
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    StopIteration,
    TypeError,
    ValueError,
  ) as error:
    raise InputError(
      f'{problem}: {type(error).__name__}, {str(error)[:200]}. {way_out}'
    ) from error


def one_line(error: object) -> str:
  """Returns `str(error)` as one line without terminal control characters."""
  line = ' '.join(str(error).split())
  unknown = '\N{REPLACEMENT CHARACTER}'
  return ''.join(c if c.isprintable() else unknown for c in line)


def _print_anything():
  """Makes standard output escape characters that it cannot encode.

  File names may contain any bytes, and a terminal may be limited to ASCII.
  Standard error escapes them by default. The output of a notebook is not
  changed.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')


@contextlib.contextmanager
def of_devices() -> Iterator[None]:
  """Turns JAX's exceptions for missing devices into `InputError`s."""
  try:
    yield
  except (AssertionError, RuntimeError) as error:
    frames = traceback.walk_tb(error.__traceback__)
    if all(
      frame.f_globals.get('__name__') != 'jax._src.xla_bridge'
      for frame, _ in frames
    ):
      raise
    platforms = os.environ.get('JAX_PLATFORMS', '')
    why = one_line(error).rstrip('.') or 'there are none'
    raise InputError(
      f'JAX cannot use the devices of JAX_PLATFORMS={platforms} ({why}): set it'
      ' to cpu, or leave it out.'
    ) from error


def exit_on_input_error(main: Callable[[], Any]) -> NoReturn:
  """Calls `main` and exits with the exit code that it returns.

  An `InputError` is printed as one line, with exit code 2. Ctrl-C also prints
  one line, with the exit code that shells use for it.
  """
  _print_anything()
  try:
    with of_devices():
      sys.exit(main())
  except InputError as error:
    print('error:', one_line(error), file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('error: interrupted', file=sys.stderr)
    sys.exit(130)
