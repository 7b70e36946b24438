"""One process at a time in a run directory."""

import contextlib
import pathlib

import filelock

from mtnet_jax import errors


@contextlib.contextmanager
def held(directory):
  """Keeps other processes out of a directory while the block runs.

  The lock is the operating system's: it ends with the process that holds it,
  however that ends, and the file that stays behind means nothing.

  Args:
    directory: one that exists.

  Raises:
    errors.InputError: another process holds it, or it cannot be locked.
  """
  lock = filelock.FileLock(pathlib.Path(directory, '.lock'), blocking=False)
  try:
    lock.acquire()
  except filelock.Timeout as error:
    raise errors.InputError(
      f'another process that still runs has {directory}: wait for it, or choose'
      ' another --workdir.'
    ) from error
  except OSError as error:
    raise errors.InputError(
      f'{directory} cannot be locked ({error.strerror}): choose another'
      ' --workdir.'
    ) from error
  try:
    yield
  finally:
    lock.release()
