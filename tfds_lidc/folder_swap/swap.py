"""Replaces a folder by another one, and repairs interrupted replacements."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib

from tfds_lidc.folder_swap import locks
from tfds_lidc.folder_swap import staged

_OLD = '.mtnet_jax-old'


def resolve(target: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the absolute path of a target, with links resolved."""
  return pathlib.Path(os.path.realpath(target))


@contextlib.contextmanager
def replaced(target: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields an empty folder, which replaces `target` when the block is done.

  Args:
    target: the folder to replace; need not exist.

  Yields:
    The path of the new folder.

  Raises:
    OSError: the folder cannot be written or renamed; the old one stays.
  """
  with _beside(target) as (new, resolved):
    yield new
    replace(new, resolved, new.parent)


@contextlib.contextmanager
def created(target: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Like `replaced`, if the target does not exist or is an empty folder.

  Args:
    target: the folder to create.

  Yields:
    The path of the new folder.

  Raises:
    OSError: the folder cannot be written; or the target has content, which
      stays.
  """
  with _beside(target) as (new, resolved):
    yield new
    os.rename(new, resolved)  # fails if the target is not empty


@contextlib.contextmanager
def _beside(
  target: str | os.PathLike[str],
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
  """Yields an empty staging folder and the resolved target."""
  target = resolve(target)
  target.parent.mkdir(parents=True, exist_ok=True)
  remove_leftovers(target.parent, target.name)
  with staged.folder(target.parent, target.name) as parent:
    new = parent / 'new'
    new.mkdir()
    yield new, target


def replace(
  new: pathlib.Path, target: str | os.PathLike[str], trash: pathlib.Path
) -> None:
  """Moves a new folder to the target, and the old one into `trash`.

  Args:
    new: a folder on the same disk as the target.
    target: its future path, whose parent exists.
    trash: a folder of `staged.folder` on the same disk.

  Raises:
    OSError: the folder cannot be moved. The old one is at the target again, or
      will be after the next call of this module.
  """
  target = resolve(target)
  old = _backup(target)
  with locks.alone_in(target.parent):
    _keep_one(target, old, trash)
    if os.path.lexists(old):
      raise OSError(
        errno.ENOTEMPTY, f'{old} is left over and cannot be removed: remove it'
      )
    try:
      if os.path.lexists(target):
        os.rename(target, old)
      os.rename(new, target)
    finally:
      _keep_one(target, old, trash)


def mend(target: str | os.PathLike[str]) -> bool:
  """Restores a folder whose replacement was killed between its two renames.

  Readers call it before they open the folder. It costs one file system call if
  there is nothing to restore.

  Args:
    target: the folder.

  Returns:
    Whether the folder was restored.

  Raises:
    OSError: the folder cannot be restored.
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


def mend_all(folder: str | os.PathLike[str]) -> None:
  """Calls `mend` for everything in a folder.

  Args:
    folder: the folder; need not exist.

  Raises:
    OSError: as in `mend`.
  """
  folder = pathlib.Path(folder)
  for path in folder.iterdir() if folder.is_dir() else ():
    if _is_backup(path):
      mend(path.with_name(_name_of(path)))


def remove_leftovers(
  folder: str | os.PathLike[str], name: str | None = None
) -> None:
  """Removes what killed processes left in a folder, and repairs replacements.

  Only names of this module without a running owner are removed.

  Args:
    folder: the folder; need not exist.
    name: name of the only target to clean up for; None for all.
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
        # The target of a shortened name is only known to its next writer.
        if name or _is_backup(path):
          _keep_one_of_dead(path, path.with_name(name or _name_of(path)))
      elif staged.NAME.fullmatch(path.name):
        lock = staged.own(path)
        if lock is not None:
          unowned.append((path, lock))
  for path, lock in unowned:
    staged.remove(path)
    os.close(lock)


def _backup(target: pathlib.Path) -> pathlib.Path:
  return staged.hidden(target, 'old')


def _is_backup(path: pathlib.Path) -> bool:
  """Whether a path is a folder with the name of a backup."""
  name = _name_of(path)
  return (
    path.name.startswith('.')
    and path.name.endswith(_OLD)
    and name not in ('', '.', '..')
    and not staged.is_shortened(name)
    and path.is_dir()
    and not path.is_symlink()
  )


def _name_of(old: pathlib.Path) -> str:
  """Returns the name of the target of a backup."""
  return old.name[1 : -len(_OLD)]


def _keep_one(
  target: pathlib.Path, old: pathlib.Path, trash: pathlib.Path
) -> None:
  """Removes the backup if there is a target; otherwise restores the target."""
  if not os.path.lexists(old):
    return
  if not os.path.lexists(target):
    os.rename(old, target)
    return
  # One rename instead of a deletion, so that a partly deleted folder is never
  # taken for a backup. If the rename fails, the next `replace` reports it.
  with contextlib.suppress(OSError):
    staged.open_up(old)
    os.rename(old, trash / staged.token())


def _keep_one_of_dead(old: pathlib.Path, target: pathlib.Path) -> None:
  """Calls `_keep_one` for a backup whose process has ended."""
  with contextlib.suppress(OSError):
    trash, lock = staged.make(old.parent, target.name)
    try:
      _keep_one(target, old, trash)
    finally:
      staged.remove(trash)
      os.close(lock)
