"""Errors that the user can mend, and how a command shows them."""

import sys


class InputError(ValueError):
  """What was given cannot be used; the message says what, where, way out."""


def exit_on_input_error(main):
  """Runs main(); an `InputError` becomes one line and exit code 2."""
  try:
    main()
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
