"""Defines the error for mistakes of a user, and how commands report it."""

from collections.abc import Callable
import io
import sys


class InputError(ValueError):
  """Invalid input; the message names the file, the value and the way out."""


def one_line(e: BaseException | str) -> str:
  """Returns `str(e)` in one line, without terminal control characters."""
  line = ' '.join(str(e).split())
  unknown = '\N{REPLACEMENT CHARACTER}'
  return ''.join(c if c.isprintable() else unknown for c in line)


def _print_anything() -> None:
  """Makes standard output escape what it cannot encode, as stderr does.

  File names may contain any bytes, and a terminal may support ASCII only. A
  notebook's replacement of standard output stays unchanged.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')


def exit_on_input_error(main: Callable[[], int | None]) -> None:
  """Runs a command and exits.

  An `InputError` is reported in one line, with exit code 2. Ctrl-C is one line,
  too, with the shell's usual code 130. Any other exception is a defect of the
  program and keeps its traceback.

  Args:
    main: the command; its return value is the exit code (None means 0).

  Raises:
    SystemExit: always.
  """
  _print_anything()
  try:
    sys.exit(main())
  except InputError as e:
    print('error:', one_line(e), file=sys.stderr, flush=True)
    sys.exit(2)
  except KeyboardInterrupt:
    print('error: interrupted', file=sys.stderr, flush=True)
    sys.exit(130)
