"""Replaces a set of files in a folder: all of them or none.

The folder may also hold files of others, so renaming the folder cannot replace
the set. Three hidden folders in it record how far a replacement has come:

    .INDEX.mtnet_jax-files-new    new files, complete or still being written
    .INDEX.mtnet_jax-files-old    old files, moved out
    .INDEX.mtnet_jax-files-ready  new files, after all old ones are moved out

No other module uses these endings. `folder_swap` would take a name that ends
like its own backups for a folder to restore.

A process that is killed leaves one of these states, which `mend` resolves:

    new alone        nothing has changed: `new` is removed
    new and old      old files are being moved out: they are moved back
    ready            all old files are out: the new files are moved in
    old alone        the new files are in: `old` is removed

The index is moved out first and in last; pages are moved out before the other
files and in after them. So even before `mend`, neither an index nor a page is
found beside files of another set. A file that appears under one of the names
meanwhile belongs to the user, and stays.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

from mtnet_jax.storage import files
from mtnet_jax.storage import locks
from mtnet_jax.system import errors

_LOCK = '.mtnet_jax-lock'


@contextlib.contextmanager
def together(
  folder: str | os.PathLike[str],
  index: str,
  own: Callable[[pathlib.Path], Iterable[str]] | None = None,
) -> Iterator[pathlib.Path]:
  """Yields a folder to write files in, which then replace those of `folder`.

  The caller holds `one_writer`.

  Args:
    folder: where the files belong; it may hold other files.
    index: name of the file that is moved last; the caller writes it, too.
    own: folder -> names of the files there that an earlier use wrote. These are
      removed, and no other file is replaced. By default, files that have the
      name of a new file are replaced.

  Raises:
    errors.InputError: the files cannot be written, or one would replace a file
      that is not in `own`; the old files stay.
  """
  folder = pathlib.Path(folder)
  mend(folder, index)
  new, old, ready = _hidden(folder, index)
  with files.writing(folder, '--out'):
    try:
      new.mkdir()
      yield new
      _move_out(folder, index, new, old, own)
      os.replace(new, ready)
    except BaseException:
      # If this fails, the next use mends the folder.
      with contextlib.suppress(OSError, errors.InputError):
        _mend(folder, index)
      raise
    _mend(folder, index)


def mend(folder: str | os.PathLike[str], index: str) -> None:
  """Finishes or undoes a replacement that was interrupted.

  The caller holds `one_writer`.

  Args:
    folder: as in `together`.
    index: as in `together`.

  Raises:
    errors.InputError: a file cannot be moved, or another file is in its way.
  """
  with files.writing(folder, '--out'):
    _mend(pathlib.Path(folder), index)


def _hidden(folder, index):
  return [
    folder / f'.{index}.mtnet_jax-files-{state}'
    for state in ('new', 'old', 'ready')
  ]


def _mend(folder, index):
  new, old, ready = _hidden(folder, index)
  if _is_folder(ready):
    # Removed first, to make room on a full disk.
    if _is_folder(old):
      shutil.rmtree(old)
    _move_in(folder, index, ready)
  elif _is_folder(old) and (
    # The index comes in last: without it, the new files are not all in.
    _is_folder(new) or not (folder / index).exists()
  ):
    _move_in(folder, index, old)
  for path in (old, new):
    if _is_folder(path):
      shutil.rmtree(path)


def _move_out(folder, index, new, old, own):
  """Moves the files that are replaced or removed into `old`."""
  names = {path.name for path in new.iterdir()}
  earlier = names if own is None else set(own(folder))
  for name in sorted(names):
    if _is_folder(folder / name):
      raise errors.InputError(
        f'{folder / name} is a folder, but a file belongs there: choose another'
        ' --out, or rename it.'
      )
    if name not in earlier and os.path.lexists(folder / name):
      raise not_own(folder / name)
  old.mkdir()
  for name in sorted(names | earlier, key=_order(index), reverse=True):
    with contextlib.suppress(FileNotFoundError):
      os.replace(folder / name, old / name)


def _move_in(folder, index, source):
  """Moves all files of a hidden folder into `folder`, and removes it."""
  names = [path.name for path in source.iterdir()]
  for name in names:
    if os.path.lexists(folder / name):
      raise errors.InputError(
        f'{folder / name} is in the way of a file that an interrupted command'
        ' left to be moved there: rename it, or choose another --out.'
      )
  for name in sorted(names, key=_order(index)):
    os.replace(source / name, folder / name)
  source.rmdir()


def _order(index):
  return lambda name: (name == index, name.endswith('.html'), name)


def _is_folder(path):
  """Returns whether a path is a folder and not a link to one."""
  return path.is_dir() and not path.is_symlink()


def not_own(path: str | os.PathLike[str]) -> errors.InputError:
  """Returns the error for a file of the user where a new file belongs."""
  return errors.InputError(
    f'{path} has the name of a result, but no earlier use of this command is'
    ' known to have written it: choose another --out, or rename it.'
  )


def one_writer(
  folder: str | os.PathLike[str],
) -> contextlib.AbstractContextManager[None]:
  """Keeps other processes from writing results into an existing folder.

  Returns:
    The context manager of `locks.exclusive`.
  """
  return locks.exclusive(pathlib.Path(folder, _LOCK), '--out')
