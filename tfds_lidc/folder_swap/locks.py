"""Locks that the system drops when their process ends."""

import contextlib
import errno
import fcntl
import os
import time

# For two renames, and the listing of a folder.
_SECONDS = 60


def take(lock):
  """Whether a lock was taken; False if not, or where there are no locks."""
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except OSError:
    return False


@contextlib.contextmanager
def alone_in(folder):
  """Waits for others of this module that rename things in a folder.

  Raises:
    TimeoutError: another process has locked the folder for a minute.
  """
  descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
  try:
    until = time.monotonic() + _SECONDS
    while True:
      try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError as error:
        if time.monotonic() > until:
          raise TimeoutError(
            errno.ETIMEDOUT, f'another process has locked {folder}'
          ) from error
        time.sleep(0.02)
      except OSError:
        break  # This filesystem has no locks of folders.
    yield
  finally:
    os.close(descriptor)
