"""Checks that a run directory did not change while a command computed.

While a command computes, somebody may rename the run directory or put another
in its place. The command's results would then end up in another run.
"""

from collections.abc import Callable
import os
import pathlib

from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors


def remember(workdir: str | os.PathLike[str]) -> Callable[[], None]:
  """Remembers a run directory; to be called before anything in it is read.

  Args:
    workdir: the run directory.

  Returns:
    A function that raises `errors.InputError` unless the directory is still
    there and has the same config.json.

  Raises:
    errors.InputError: `workdir` is not a run directory.
  """
  if not pathlib.Path(workdir, 'config.json').exists():
    workdir_lib.read_config(workdir)  # It raises an error with the way out.
  try:
    identity = identity_lib.Identity(workdir)
  except OSError as error:
    raise errors.InputError(
      f'{workdir} cannot be read: {error.strerror}.'
    ) from error

  def check():
    try:
      identity.check()
    except errors.InputError as error:
      raise errors.InputError(
        f'{workdir} is not the run that was read: it was moved, replaced or'
        ' changed meanwhile. Nothing is written; run the command again, with'
        ' the path that the run has now.'
      ) from error

  return check
