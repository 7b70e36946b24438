"""Mistakes that a user can mend, and how a command reports them."""

from collections.abc import Callable
import sys


class InputError(ValueError):
  """Bad input: the message names the file, the value and the way out."""


def exit_on_input_error(main: Callable[[], int | None]) -> None:
  """Runs a command and exits; an `InputError` ends it in one line, code 2.

  Everything else is a defect of the program and keeps its traceback.

  Args:
    main: the command; its return value becomes the exit code (None is 0).

  Raises:
    SystemExit: always.
  """
  try:
    sys.exit(main())
  except InputError as e:
    sys.exit(_print_error(' '.join(str(e).split())))
  except KeyboardInterrupt:
    sys.exit(_print_error('interrupted'))


def _print_error(line: str) -> int:
  print(f'error: {line}', file=sys.stderr, flush=True)
  return 2
