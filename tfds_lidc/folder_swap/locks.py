"""Locks folders and files; the system releases them when the process ends."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import time

from tfds_lidc.folder_swap import lock_file

# Far longer than two renames and listing a folder take.
_MAX_WAIT_S = 60
_POLL_S = 0.02
_FILE = '.mtnet_jax-swap'


def take(descriptor: int) -> bool:
  """Locks an open file without waiting.

  Args:
    descriptor: of the open file.

  Returns:
    Whether it is locked now; False if another process holds the lock, or if the
    file system has no locks.
  """
  try:
    return _try(descriptor)
  except OSError:
    return False


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
  """Locks a folder for renames in it; waits for other processes.

  Args:
    folder: an existing folder.

  Yields:
    Nothing; the lock is held if the file system has locks.

  Raises:
    TimeoutError: another process has locked the folder for a minute.
  """
  descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
  try:
    try:
      _wait(lambda: _try(descriptor), folder)
    except TimeoutError:
      raise
    except OSError:
      # NFS only locks files, and a lock file may not fit on a full disk.
      with _file_locked(pathlib.Path(folder)):
        yield
      return
    yield
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def _file_locked(folder: pathlib.Path) -> Iterator[None]:
  """Locks a file in a folder; yields without a lock if that is impossible."""
  path = folder / _FILE
  lock: int | None = None

  def acquire() -> bool:
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


def _wait(acquire: Callable[[], bool], folder: str | os.PathLike[str]) -> None:
  """Calls `acquire` until it returns True."""
  until = time.monotonic() + _MAX_WAIT_S
  while not acquire():
    if time.monotonic() > until:
      raise TimeoutError(
        errno.ETIMEDOUT, f'another process has locked {folder}'
      )
    time.sleep(_POLL_S)


def _try(descriptor: int) -> bool:
  """Locks a descriptor; returns False if another process holds the lock."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except BlockingIOError:
    return False
