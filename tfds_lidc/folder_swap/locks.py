"""Locks that the system drops when their process ends."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import time

from tfds_lidc.folder_swap import lock_file

# For two renames, and the listing of a folder.
_SECONDS = 60
_POLL_S = 0.02
_FILE = '.mtnet_jax-swap'


def take(lock: int) -> bool:
  """Whether a lock was taken; False if not, or where there are no locks."""
  try:
    return _try(lock)
  except OSError:
    return False


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike) -> Iterator[None]:
  """Waits for others of this module that rename things in a folder.

  Raises:
    TimeoutError: another process has locked the folder for a minute.
  """
  opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
  try:
    try:
      _wait(lambda: _try(opened), folder)
    except TimeoutError:
      raise
    except OSError:
      # NFS locks files only, which a full disk may not take.
      with _file_locked(pathlib.Path(folder)):
        yield
      return
    yield
  finally:
    os.close(opened)


@contextlib.contextmanager
def _file_locked(folder):
  """The lock of a file in a folder; none where that cannot be had."""
  path, lock = folder / _FILE, None

  def acquire():
    nonlocal lock
    lock = lock_file.acquire(path, on_no_locks=lambda _: None)
    return lock is not None

  try:
    _wait(acquire, folder)
  except TimeoutError:
    raise
  except OSError:
    pass
  try:
    yield
  finally:
    if lock is not None:
      lock_file.release(lock, path)


def _wait(acquire, folder):
  """Calls `acquire` until it is true."""
  until = time.monotonic() + _SECONDS
  while not acquire():
    if time.monotonic() > until:
      raise TimeoutError(
        errno.ETIMEDOUT, f'another process has locked {folder}'
      )
    time.sleep(_POLL_S)


def _try(descriptor):
  """Whether it is locked now; False if another process has it."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except BlockingIOError:
    return False
