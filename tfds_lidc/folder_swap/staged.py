"""Creates hidden staging files and folders beside their targets."""

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
# Most file systems limit names to 255 bytes; this leaves room for the rest.
_MAX_BYTES = 200


@contextlib.contextmanager
def folder(parent: str | os.PathLike[str], name: str) -> Iterator[pathlib.Path]:
  """Yields a hidden folder, which is removed at the end with its contents.

  Args:
    parent: an existing folder on the same disk as the target.
    name: name of the target; part of the hidden name.

  Yields:
    The path of the hidden folder.

  Raises:
    OSError: the folder cannot be created.
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
def file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields an empty hidden file, which is removed unless the caller renames it.

  Args:
    path: the target, in the same folder.

  Yields:
    The path of the hidden file.

  Raises:
    OSError: the file cannot be created.
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


def make(parent: pathlib.Path, name: str) -> tuple[pathlib.Path, int]:
  """Creates a staging folder; also returns the descriptor of its lock."""
  staged = hidden(parent / name, token())
  staged.mkdir(mode=0o700)
  try:
    lock = os.open(staged / _LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
  except BaseException:
    staged.rmdir()
    raise
  locks.take(lock)
  return staged, lock


def remove(path: pathlib.Path) -> None:
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


def open_up(folder: str | os.PathLike[str]) -> None:
  """Gives a folder's owner the rights to move it and to empty it."""
  if not os.path.islink(folder):
    with contextlib.suppress(OSError):
      os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | stat.S_IRWXU)


def own(path: pathlib.Path) -> int | None:
  """Locks a staged file or folder that a killed process left behind.

  Args:
    path: the staged file or folder.

  Returns:
    The descriptor of its lock; None if it has a running owner or is gone.
  """
  try:
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode):
      lock = _open(path / _LOCK)
    elif stat.S_ISREG(found.st_mode):
      lock = _open(path)
    else:
      return None
  except FileNotFoundError:
    # The process was killed before it created the lock or after it removed the
    # lock, so the folder is empty.
    with contextlib.suppress(OSError):
      path.rmdir()
    return None
  except OSError:
    return None
  if locks.take(lock):
    return lock
  os.close(lock)
  return None


def _open(path: pathlib.Path) -> int:
  # Neither follows a link nor waits for the other end of a pipe.
  return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)


def prefix(name: str) -> str:
  """Returns the beginning of all hidden names for a target's name."""
  if len(os.fsencode(name)) > _MAX_BYTES:
    # The mark distinguishes a digest from a target of that very name.
    name = f'{hashlib.sha256(os.fsencode(name)).hexdigest()}~{_MAX_BYTES}'
  return f'.{name}.mtnet_jax-'


def is_shortened(name: str) -> bool:
  """Whether `prefix` has replaced a long name by this digest."""
  return name.endswith(f'~{_MAX_BYTES}')


def hidden(path: pathlib.Path, ending: str) -> pathlib.Path:
  """Returns the path of a hidden name beside a target."""
  return path.with_name(prefix(path.name) + ending)


def token() -> str:
  """Returns a random ending of a hidden name, which `NAME` matches."""
  return secrets.token_hex(8)
