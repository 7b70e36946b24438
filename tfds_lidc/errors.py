"""Mistakes that a user can correct, and how a command reports them."""

from collections.abc import Callable
import io
import sys


class InputError(ValueError):
  """Bad input: the message names the file, the value and the way out."""


def one_line(e: Exception | str) -> str:
  """`str(e)` without what would move or colour a terminal."""
  line = ' '.join(str(e).split())
  unknown = '\N{REPLACEMENT CHARACTER}'
  return ''.join(c if c.isprintable() else unknown for c in line)


def _print_anything() -> None:
  """Lets standard output escape what its encoding has not, as stderr does.

  Names of files may be of any bytes, and a terminal may know ASCII only.
  Whatever stands in for standard output in a notebook is left as it is.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')


def exit_on_input_error(main: Callable[[], int | None]) -> None:
  """Runs a command and exits; an `InputError` ends it in one line, code 2.

  Ctrl-C is a line, too, and the shell's usual code for it. Everything else is a
  defect of the program and keeps its traceback.

  Args:
    main: the command; its return value becomes the exit code (None is 0).

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
