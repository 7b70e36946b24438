"""A run that is read for long, and what is then written below it.

While a command computes, somebody may rename the run directory, or put another
in its place. What the command writes then would lie among what is another's.
"""

import pathlib

from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors


def remember(workdir):
  """Remembers a run directory, before anything of it is read.

  Args:
    workdir: the run directory.

  Returns:
    A function that raises `errors.InputError` unless it is still there, and
    has the same config.json.

  Raises:
    errors.InputError: it is no run directory.
  """
  if not pathlib.Path(workdir, 'config.json').exists():
    workdir_lib.read_config(workdir)  # Which says so, and the way out.
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
        ' changed meanwhile. Nothing is written; give the command again, with'
        ' the path that the run has now.'
      ) from error

  return check
