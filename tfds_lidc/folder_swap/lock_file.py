"""A file that is locked by whoever works in its folder, and says who that is.

It is hidden and lies with what it guards, so that it holds for all who share
the folder. The system drops the lock of a process that is killed. The file is
never followed where it is a link; what it holds is overwritten, and the file
removed, only if a holder of such a lock wrote it.
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
# Each is lost only to a holder that ends in that very moment.
_TRIES = 100
# Of file systems without locks, as some mounts of networks are.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _say_no_locks(folder: pathlib.Path) -> None:
  print(
    f'The file system of {folder} has no locks: let no other process write '
    'there meanwhile.',
    file=sys.stderr,
    flush=True,
  )


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock while the block runs.

  Raises:
    BlockingIOError: another process has it; its message says who, if known.
    OSError: another one: what is at `path` cannot be a lock.
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
  on_no_locks: Callable[[pathlib.Path], None] = _say_no_locks,
) -> int | None:
  """Takes a lock, without waiting for it.

  Args:
    path: of its file.
    on_no_locks: called with the folder if its file system has no locks, where
      nobody can be kept out.

  Returns:
    The descriptor of the file, for `release`; None if another process has it.

  Raises:
    OSError: what is at `path` cannot be a lock.
  """
  for _ in range(_TRIES):
    descriptor = _open(path)
    try:
      found = os.fstat(descriptor)
      # A second name of somebody's file would have that one written to.
      if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.EINVAL, 'it is no file of its own')
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # Whoever had it may have removed it since: then nobody sees this one.
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
  raise OSError(errno.ESTALE, 'it is another file each time')


def release(descriptor: int, path: pathlib.Path) -> None:
  """Gives a lock back, and removes its file."""
  # While it is held: nobody can have locked it between.
  with contextlib.suppress(OSError):
    if _is_ours(descriptor) and _is_at(descriptor, path):
      path.unlink()
  os.close(descriptor)


def holder(path: pathlib.Path) -> str:
  """Who has a lock, as they wrote it, in any letters; '' where they did not."""
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
  # Without waiting for whoever writes, if somebody has put a pipe there.
  flags = os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    # As open to others as their umask lets the folder be.
    return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o666)
  except PermissionError:
    # Another user's, which can be locked all the same.
    return os.open(path, flags | os.O_RDONLY)


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), os.lstat(path))
  except FileNotFoundError:
    return False


def _sign(descriptor: int) -> None:
  """Writes who has the lock, for those who want it."""
  if not _is_ours(descriptor):
    return
  since = time.strftime('%Y-%m-%d %H:%M:%S %z')
  text = f'process {os.getpid()} on {socket.gethostname()}, since {since}\n'
  with contextlib.suppress(OSError):  # It holds without, also on a full disk.
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, _MARK + text.encode(), 0)


def _is_ours(descriptor: int) -> bool:
  text = os.pread(descriptor, len(_MARK), 0)
  return not text or text == _MARK
