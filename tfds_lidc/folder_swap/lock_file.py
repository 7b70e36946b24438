"""Locks a folder for one process by a lock file that names its holder.

The file is hidden in the folder that it protects, so that the lock works for
all machines that share the folder. The system releases the lock of a process
that is killed. A link in place of the file is never followed. The file is only
overwritten or removed if a holder of such a lock wrote it.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import stat
import sys
import time

_MARK = b'mtnet_jax lock: '
# A try only fails if another holder removes the file at that very moment.
_MAX_TRIES = 100
# Errors of file systems without locks, such as some network mounts.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _warn_of_no_locks(folder: pathlib.Path) -> None:
  print(
    f'The file system of {folder} has no locks: make sure that no other '
    'process writes there meanwhile.',
    file=sys.stderr,
    flush=True,
  )


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock while the block runs.

  Args:
    path: the lock file.

  Yields:
    Nothing; the lock is held.

  Raises:
    BlockingIOError: another process holds it; the message names that process
      if it is known.
    OSError: the file at `path` cannot be used as a lock.
  """
  descriptor = acquire(path)
  if descriptor is None:
    raise BlockingIOError(errno.EAGAIN, holder(path))
  try:
    yield
  finally:
    release(descriptor, path)


def acquire(
  path: pathlib.Path,
  *,
  on_no_locks: Callable[[pathlib.Path], None] = _warn_of_no_locks,
) -> int | None:
  """Acquires a lock without waiting for it.

  Args:
    path: the lock file.
    on_no_locks: called with the folder if its file system has no locks, so that
      other processes cannot be kept out.

  Returns:
    The file descriptor for `release`; None if another process holds the lock.

  Raises:
    OSError: the file at `path` cannot be used as a lock.
  """
  for _ in range(_MAX_TRIES):
    descriptor = _open(path)
    try:
      found = os.fstat(descriptor)
      # Writing to a hard link would change another file, too.
      if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.EINVAL, 'it is a special file or a hard link')
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # The last holder may have removed the file since it was opened here; a
      # lock on a removed file would keep nobody out.
      if _is_at(descriptor, path):
        _sign(descriptor)
        return descriptor
    except BlockingIOError:
      os.close(descriptor)
      return None
    except OSError as e:
      if e.errno in _NO_LOCKS:
        on_no_locks(path.parent)
        return descriptor
      os.close(descriptor)
      raise
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)
  raise OSError(errno.ESTALE, 'other processes keep replacing it')


def release(descriptor: int, path: pathlib.Path) -> None:
  """Releases a lock and removes its file."""
  # The file is removed while it is locked, so that no other process can lock it
  # in between.
  with contextlib.suppress(OSError):
    if _is_ours(descriptor) and _is_at(descriptor, path):
      path.unlink()
  os.close(descriptor)


def holder(path: pathlib.Path) -> str:
  """Returns the holder's description of itself, unchecked; '' if there is none.

  Args:
    path: the lock file.
  """
  try:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
  except OSError:
    return ''
  with open(descriptor, 'rb'):
    try:
      text = os.pread(descriptor, 200, 0)
    except OSError:
      return ''
  if not text.startswith(_MARK):
    return ''
  return text.removeprefix(_MARK).decode('utf-8', 'replace')


def _open(path: pathlib.Path) -> int:
  # O_NONBLOCK, as opening a pipe would wait for its writer.
  flags = os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    # The umask decides whether other users may write the file.
    return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o666)
  except PermissionError:
    # Another user's file can be locked even if it cannot be written.
    return os.open(path, flags | os.O_RDONLY)


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), os.lstat(path))
  except FileNotFoundError:
    return False


def _sign(descriptor: int) -> None:
  """Writes the holder of the lock into its file, for messages."""
  if not _is_ours(descriptor):
    return
  since = time.strftime('%Y-%m-%d %H:%M:%S %z')
  text = f'process {os.getpid()} on {socket.gethostname()}, since {since}\n'
  with contextlib.suppress(
    OSError
  ):  # the lock works without, as on a full disk
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, _MARK + text.encode(), 0)


def _is_ours(descriptor: int) -> bool:
  text = os.pread(descriptor, len(_MARK), 0)
  return not text or text == _MARK
