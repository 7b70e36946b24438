"""Errors that the user can mend, and how a command shows them."""

import sys


class InputError(ValueError):
  """What was given cannot be used; the message says what, where, way out."""


def exit_on_input_error(main):
  """Exits with main()'s code; an `InputError` is one line and code 2.

  Ctrl-C is a line, too, and the shell's usual code for it.
  """
  try:
    sys.exit(main())
  except InputError as error:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('error: interrupted', file=sys.stderr)
    sys.exit(130)
