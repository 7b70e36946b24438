"""Errors that the user can fix, and how a command shows them."""

import contextlib
import io
import os
import sys
import traceback


class InputError(ValueError):
  """An input cannot be used; the message says which, why, and what to do."""


class BusyError(InputError):
  """Another process works on it."""


@contextlib.contextmanager
def translated(kind):
  """Turns exceptions of another package into `InputError`.

  Args:
    kind: the class of them; its messages are meant for users, and stay.
  """
  try:
    yield
  except kind as error:
    raise InputError(str(error)) from error


@contextlib.contextmanager
def of_wrong_values(says, *, way_out):
  """Turns errors that unexpected values cause into `InputError`.

  For code that uses values of files that anyone may have written.

  Args:
    says: which file it is, and what it must be; begins the message.
    way_out: what the user can do; ends the message.
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
      f'{says}: {type(error).__name__}, {str(error)[:200]}. {way_out}'
    ) from error


def one_line(error):
  """`str(error)` without characters that would control a terminal."""
  line = ' '.join(str(error).split())
  unknown = '\N{REPLACEMENT CHARACTER}'
  return ''.join(c if c.isprintable() else unknown for c in line)


def _print_anything():
  """Lets standard output escape what its encoding has not, as stderr does.

  Names of files may be of any bytes, and a terminal may know ASCII only.
  Whatever stands in for standard output in a notebook is left as it is.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')


@contextlib.contextmanager
def of_devices():
  """Turns JAX's exceptions of devices that are not there into `InputError`."""
  try:
    yield
  except (AssertionError, RuntimeError) as error:
    frames = traceback.walk_tb(error.__traceback__)
    if all(
      frame.f_globals.get('__name__') != 'jax._src.xla_bridge'
      for frame, _ in frames
    ):
      raise
    asked = os.environ.get('JAX_PLATFORMS', '')
    why = one_line(error).rstrip('.') or 'there are none of these'
    raise InputError(
      f'JAX cannot use the devices of JAX_PLATFORMS={asked} ({why}): set it to'
      ' cpu, or leave it out.'
    ) from error


def exit_on_input_error(main):
  """Exits with the code of `main()`; an `InputError` is one line and code 2.

  Ctrl-C is one line as well, with the shell's usual exit code for it.
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
