"""Files that belong together: all of one use, or all of another.

They lie among files of others, so that no rename of a folder replaces them at
once. Three hidden folders beside them say how far a replacement has come:

    .INDEX.mtnet_jax-files-new    new files, still written, or complete
    .INDEX.mtnet_jax-files-old    old files, out of the way
    .INDEX.mtnet_jax-files-ready  new files, once no old one is in their way

The endings are no other module's: what ends as a backup of `folder_swap` does,
that takes for a folder, and gives it back.

A process that is killed leaves one of these states, which `mend` ends:

    new alone        nothing has changed: it is removed
    new and old      old files are being moved out: they go back
    ready            old files are all out: the new ones come in
    old alone        the new ones are in: it is removed

The index goes out first and comes in last, and pages go out before other files
and come in after them. Before `mend`, neither stands beside files of another
use. A file that came into the place of one meanwhile is the user's, and stays.
"""

import contextlib
import os
import pathlib
import shutil

from mtnet_jax.storage import files
from mtnet_jax.storage import locks
from mtnet_jax.system import errors

_LOCK = '.mtnet_jax-lock'


@contextlib.contextmanager
def together(folder, index, own=None):
  """Yields a folder for files that belong together, and appear together.

  What an earlier use left goes when they come. The caller holds `one_writer`.

  Args:
    folder: where the files belong, which may hold others.
    index: name of the file that comes last, which the caller writes, too.
    own: called with the folder, says the names of the files in it that an
      earlier use left. They go, and no other file is replaced. By default that
      goes which has the name of a new file.

  Raises:
    errors.InputError: they cannot be written, or one would take the place of
      what is not the caller's; what was there stays.
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
      # What cannot be mended now is mended at the next start.
      with contextlib.suppress(OSError, errors.InputError):
        _mend(folder, index)
      raise
    _mend(folder, index)


def mend(folder, index):
  """Ends a replacement that was interrupted: all old files, or all new ones.

  Args:
    folder, index: of `together`. The caller holds `one_writer`.

  Raises:
    errors.InputError: the files cannot be moved, or another one is in the way.
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
    # Whose files nobody misses: a disk that was full has room then.
    if _is_folder(old):
      shutil.rmtree(old)
    _move_in(folder, index, ready)
  elif _is_folder(old) and (
    # Without the index there is nothing for which the old ones would go.
    _is_folder(new) or not (folder / index).exists()
  ):
    _move_in(folder, index, old)
  for path in (old, new):
    if _is_folder(path):
      shutil.rmtree(path)


def _move_out(folder, index, new, old, own):
  """Moves what is not to stay into `old`."""
  names = {path.name for path in new.iterdir()}
  earlier = names if own is None else set(own(folder))
  for name in sorted(names):
    if _is_folder(folder / name):
      raise errors.InputError(
        f'{folder / name} is a folder, where a file belongs: choose another'
        ' --out, or rename it.'
      )
    if name not in earlier and os.path.lexists(folder / name):
      raise not_own(folder / name)
  old.mkdir()
  for name in sorted(names | earlier, key=_order(index), reverse=True):
    with contextlib.suppress(FileNotFoundError):
      os.replace(folder / name, old / name)


def _move_in(folder, index, source):
  """Moves all files of a hidden folder beside it, and removes it."""
  names = [path.name for path in source.iterdir()]
  for name in names:
    if os.path.lexists(folder / name):
      raise errors.InputError(
        f'{folder / name} is in the way of a file that an interrupted use of'
        ' this folder left: rename it, or choose another --out.'
      )
  for name in sorted(names, key=_order(index)):
    os.replace(source / name, folder / name)
  source.rmdir()


def _order(index):
  return lambda name: (name == index, name.endswith('.html'), name)


def _is_folder(path):
  """Whether it is a folder itself, and no link to one."""
  return path.is_dir() and not path.is_symlink()


def not_own(path):
  """The error for a file of the user's where a new one belongs."""
  return errors.InputError(
    f'{path} is where a result belongs, and is of no earlier use that could be'
    ' told: choose another --out, or rename it.'
  )


def one_writer(folder):
  """Keeps other processes from writing results into a folder meanwhile.

  Args:
    folder: an existing one.

  Returns:
    A context manager, of `locks.exclusive`.
  """
  return locks.exclusive(pathlib.Path(folder, _LOCK), '--out')
