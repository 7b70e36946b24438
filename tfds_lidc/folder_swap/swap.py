"""A folder takes the place of another one, or its place back."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib

from tfds_lidc.folder_swap import locks
from tfds_lidc.folder_swap import staged

_OLD = '.mtnet_jax-old'


def resolve(target: str | os.PathLike) -> pathlib.Path:
  """The absolute path of a target; what a link leads to, not the link."""
  return pathlib.Path(os.path.realpath(target))


@contextlib.contextmanager
def replaced(target: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields an empty folder, which replaces `target` when the block is done.

  Raises:
    OSError: it cannot be written, or not take its place; the old one stays.
  """
  with _beside(target) as (new, target):
    yield new
    replace(new, target, new.parent)


@contextlib.contextmanager
def created(target: str | os.PathLike) -> Iterator[pathlib.Path]:
  """As `replaced`, where there is nothing yet, or an empty folder.

  Raises:
    OSError: it cannot be written; or there is something by now, which stays.
  """
  with _beside(target) as (new, target):
    yield new
    os.rename(new, target)  # Not over a folder that holds anything.


@contextlib.contextmanager
def _beside(target):
  target = resolve(target)
  target.parent.mkdir(parents=True, exist_ok=True)
  remove_leftovers(target.parent, target.name)
  with staged.folder(target.parent, target.name) as parent:
    new = parent / 'new'
    new.mkdir()
    yield new, target


def replace(
  new: pathlib.Path, target: str | os.PathLike, trash: pathlib.Path
) -> None:
  """Moves a folder to its place, and the one that is there into `trash`.

  Args:
    new: on the same disk as the target.
    target: its place, whose parent exists.
    trash: a folder of `staged.folder` on this disk.

  Raises:
    OSError: it could not be moved; what was at the target is there again, or
      at the next start.
  """
  target = resolve(target)
  old = _backup(target)
  with locks.alone_in(target.parent):
    _settle(target, old, trash)
    if os.path.lexists(old):
      raise OSError(
        errno.ENOTEMPTY, f'{old} is left over and cannot be removed: remove it'
      )
    try:
      if os.path.lexists(target):
        os.rename(target, old)
      os.rename(new, target)
    finally:
      _settle(target, old, trash)


def mend(target: str | os.PathLike) -> bool:
  """Gives a folder back whose replacement was killed between its renames.

  For readers, to whom it is missing. It costs one look where all is well.

  Returns:
    Whether it was given back.

  Raises:
    OSError: it should be, and may not.
  """
  target = resolve(target)
  old = _backup(target)
  if not os.path.lexists(old):
    return False
  with locks.alone_in(target.parent):
    if os.path.lexists(target) or not os.path.lexists(old):
      return False
    os.rename(old, target)
    return True


def mend_all(folder: str | os.PathLike) -> None:
  """`mend` of everything in a folder, which need not exist.

  Raises:
    OSError: as there.
  """
  folder = pathlib.Path(folder)
  for path in folder.iterdir() if folder.is_dir() else ():
    if _is_backup(path):
      mend(path.with_name(_name_of(path)))


def remove_leftovers(
  folder: str | os.PathLike, name: str | None = None
) -> None:
  """Removes what processes that were killed left in a folder, and mends it.

  Nothing is removed that has another name than those of this module, or a
  living owner.

  Args:
    folder: the folder; need not exist.
    name: only what is hidden for this name.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    return
  unowned = []
  with locks.alone_in(folder):
    for path in list(folder.iterdir()):
      if name is not None and not path.name.startswith(staged.prefix(name)):
        continue
      if path.name.endswith(_OLD):
        # A name that was shortened is known to its next writer only.
        if name or _is_backup(path):
          _settle_alone(path, path.with_name(name or _name_of(path)))
      elif staged.NAME.fullmatch(path.name):
        lock = staged.own(path)
        if lock is not None:
          unowned.append((path, lock))
  for path, lock in unowned:
    staged.remove(path)
    os.close(lock)


def _backup(target):
  return staged.hidden(target, 'old')


def _is_backup(path):
  """Whether it is a folder under the name that this module gives a backup."""
  name = _name_of(path)
  return (
    path.name.startswith('.')
    and path.name.endswith(_OLD)
    and name not in ('', '.', '..')
    and not staged.is_shortened(name)
    and path.is_dir()
    and not path.is_symlink()
  )


def _name_of(old):
  return old.name[1 : -len(_OLD)]


def _settle(target, old, trash):
  """Leaves one of both: the target, or in its place the old one."""
  if not os.path.lexists(old):
    return
  if not os.path.lexists(target):
    os.rename(old, target)
    return
  # Moved at once, so that no part of it is ever taken for a whole. What cannot
  # be moved stays in the way of the next replacement, which says so.
  with contextlib.suppress(OSError):
    staged.open_up(old)
    os.rename(old, trash / staged.token())


def _settle_alone(old, target):
  """`_settle` of a backup whose process is gone."""
  with contextlib.suppress(OSError):
    trash, lock = staged.make(old.parent, target.name)
    try:
      _settle(target, old, trash)
    finally:
      staged.remove(trash)
      os.close(lock)
