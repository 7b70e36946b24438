"""One build of a config at a time, on all machines that share its folder."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import socket
import stat
import time

from tfds_lidc import errors

_MAX_WAIT_S = 6 * 3600.0
_POLL_S = 0.5
# A lock begins with it. What does not is somebody's file, and stays as it is.
_MARK = b'tfds_lidc build: '
# Of file systems without locks, as some mounts of networks are.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def exclusive(
  data_dir: pathlib.Path, config: str, *, max_wait_s: float | None = None
) -> Iterator[None]:
  """Lets one build of a config at a time through; others wait.

  They would clear away the scans that each other remembers. The lock is a
  hidden file in the data directory, so that it holds for whoever builds there,
  and goes when the build ends. It is never followed where it is a link, and
  what it holds is overwritten only if a build wrote it. The operating system
  drops the lock of a process that is killed.

  Args:
    data_dir: where datasets live; exists.
    config: name of the config.
    max_wait_s: how long to wait for another build; None for six hours.

  Raises:
    InputError: the other build takes longer, or the lock is no usual file.
  """
  path = _path(data_dir, config)
  deadline = time.monotonic() + (
    _MAX_WAIT_S if max_wait_s is None else max_wait_s
  )
  said = False
  try:
    while (descriptor := _acquire(path)) is None:
      holder = _holder(path)
      if time.monotonic() > deadline:
        raise errors.InputError(
          f'another process still builds {config} in {data_dir} ({holder}): '
          'wait until it ends, or stop it, or choose another --data_dir'
        )
      if not said:
        print(
          f'Another process builds {config} in {data_dir} ({holder}): waiting '
          'for it.',
          flush=True,
        )
        said = True
      time.sleep(_POLL_S)
  except OSError as e:
    raise errors.InputError(
      f'{path} cannot be used as the lock of a build ({e.strerror}): if no '
      'build runs there, remove it, or choose another --data_dir'
    ) from e
  try:
    yield
  finally:
    _release(descriptor, path)


def _path(data_dir: pathlib.Path, config: str) -> pathlib.Path:
  # A digest, as the name of a config may be as long as that of any file.
  digest = hashlib.sha256(os.fsencode(config)).hexdigest()[:16]
  return data_dir / f'.lidc_nodules-{digest}.lock'


def _acquire(path: pathlib.Path) -> int | None:
  """An open file that is locked, or None where another process has the lock."""
  while True:
    descriptor = _open(path)
    try:
      status = os.fstat(descriptor)
      # A second name of somebody's file would have that one written to.
      if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
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
        print(
          f'The file system of {path.parent} has no locks: let no other '
          'process build there meanwhile.',
          flush=True,
        )
        return descriptor
      os.close(descriptor)
      raise
    os.close(descriptor)


def _open(path: pathlib.Path) -> int:
  # Without waiting for whoever writes, if somebody has put a pipe there.
  flags = os.O_NOFOLLOW | os.O_NONBLOCK
  try:
    # As open to others as their umask lets the dataset be.
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
  """Writes who has the lock, for those who wait."""
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


def _holder(path: pathlib.Path) -> str:
  """Who has the lock, as they wrote it."""
  unknown = 'it is not known which'
  try:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
  except OSError:
    return unknown
  with open(descriptor, 'rb'):
    try:
      text = os.pread(descriptor, 200, 0)
    except OSError:
      return unknown
  if not text.startswith(_MARK):
    return unknown
  return errors.one_line(text.removeprefix(_MARK).decode('utf-8', 'replace'))


def _release(descriptor: int, path: pathlib.Path) -> None:
  # Removed while it is held: nobody can have locked it between.
  with contextlib.suppress(OSError):
    if _is_ours(descriptor) and _is_at(descriptor, path):
      path.unlink()
  os.close(descriptor)
