"""Errors that Orbax raises and prints when it cannot write a checkpoint."""

from collections.abc import Iterator
import contextlib
import functools
import re
import sys

from absl import logging


@contextlib.contextmanager
def hidden() -> Iterator[None]:
  """Hides errors that Orbax's threads print, since Orbax raises them too."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.FATAL)
  shown = sys.unraisablehook
  sys.unraisablehook = functools.partial(_show_unless_late, shown)
  try:
    yield
    # After an error the hook stays: threads still write the other arrays.
    sys.unraisablehook = shown
  finally:
    logging.set_verbosity(verbosity)


def _show_unless_late(shown, unraisable):
  """Shows an error unless an earlier one closed the event loop it wrote to."""
  error = unraisable.exc_value
  if not (isinstance(error, RuntimeError) and 'loop is closed' in str(error)):
    shown(unraisable)


def reason(error: Exception) -> str:
  """Returns the operating system's message in an error that Orbax raised."""
  # TensorStore appends details as [key='value'], in any order.
  message = re.match(r"(.*?) \[\w+='", str(error), re.DOTALL)
  if message is None or 'os_error_code' not in str(error):
    return first_line(error)
  return message[1].rpartition(': ')[2].strip()


def first_line(error: Exception) -> str:
  """Returns the first line of an error's message, or the name of its class."""
  return next(iter(str(error).splitlines()), type(error).__name__)[:200]
