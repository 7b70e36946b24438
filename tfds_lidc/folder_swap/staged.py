"""What is written beside its place, under a name of this package's."""

from collections.abc import Iterator
import contextlib
import hashlib
import os
import pathlib
import re
import secrets
import shutil
import stat

from tfds_lidc.folder_swap import locks

NAME = re.compile(r'\..+\.mtnet_jax-[0-9a-f]{16}')
_LOCK = '.lock'
# A file's name has at most 255 bytes on most filesystems.
_MAX_BYTES = 200


@contextlib.contextmanager
def folder(parent: str | os.PathLike, name: str) -> Iterator[pathlib.Path]:
  """Yields a hidden folder, which is removed at the end with its contents.

  Args:
    parent: where it is made, on the disk of what it is for.
    name: what it is for; begins its name.

  Raises:
    OSError: it cannot be made.
  """
  parent = pathlib.Path(parent)
  with locks.alone_in(parent):
    staged, lock = make(parent, name)
  try:
    yield staged
  finally:
    remove(staged)
    os.close(lock)


@contextlib.contextmanager
def file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields an empty file beside `path`, to be renamed; else it is removed.

  Raises:
    OSError: it cannot be made.
  """
  staged = hidden(pathlib.Path(path), token())
  lock = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
  try:
    locks.take(lock)
    yield staged
  finally:
    with contextlib.suppress(OSError):
      staged.unlink()
    os.close(lock)


def make(parent, name):
  """A new staging folder, and the descriptor that holds its lock."""
  staged = hidden(parent / name, token())
  staged.mkdir(mode=0o700)
  try:
    lock = os.open(staged / _LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
  except BaseException:
    staged.rmdir()
    raise
  locks.take(lock)
  return staged, lock


def remove(path):
  """Removes a staged file or folder as far as possible, its lock last."""
  with contextlib.suppress(OSError):
    if not path.is_dir():
      path.unlink()
      return
    for inside in list(path.iterdir()):
      if inside.name == _LOCK:
        continue
      if inside.is_dir() and not inside.is_symlink():
        for folder, _, _ in os.walk(inside):
          open_up(folder)
        shutil.rmtree(inside, ignore_errors=True)
      else:
        inside.unlink()
    if len(list(path.iterdir())) == 1:
      (path / _LOCK).unlink()
      path.rmdir()


def open_up(folder):
  """Lets a folder's owner move it, and remove what is in it."""
  if not os.path.islink(folder):
    with contextlib.suppress(OSError):
      os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | stat.S_IRWXU)


def own(path):
  """The locked descriptor of a leftover, or None where it has an owner."""
  try:
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode):
      lock = _open(path / _LOCK)
    elif stat.S_ISREG(found.st_mode):
      lock = _open(path)
    else:
      return None
  except FileNotFoundError:
    # Killed before the lock was there, or after it was gone: nothing is inside.
    with contextlib.suppress(OSError):
      path.rmdir()
    return None
  except OSError:
    return None
  if locks.take(lock):
    return lock
  os.close(lock)
  return None


def _open(path):
  # Neither follows a link nor waits for the other end of a pipe.
  return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)


def prefix(name):
  """How hidden names begin that are for `name`."""
  if len(os.fsencode(name)) > _MAX_BYTES:
    # With a mark, by which nobody takes it for the name itself.
    name = f'{hashlib.sha256(os.fsencode(name)).hexdigest()}~{_MAX_BYTES}'
  return f'.{name}.mtnet_jax-'


def is_shortened(name):
  """Whether a name in `prefix` stands for a longer one."""
  return name.endswith(f'~{_MAX_BYTES}')


def hidden(path, ending):
  """The path of a hidden name beside `path`."""
  return path.with_name(prefix(path.name) + ending)


def token():
  """The ending of a staged name, which `NAME` matches."""
  return secrets.token_hex(8)
