"""The folders of saved steps, below the `latest` or `best` of a stage.

    DIR/<step>              what Orbax saved
    DIR/.replaced/<step>    the same step as it was, while it is saved again
    DIR/.removed.<step>     what is being deleted

Orbax takes neither of the hidden names for a step. A process that is killed
leaves one of them, which `mend` ends.
"""

import contextlib
import os
import pathlib
import shutil

_REPLACED = '.replaced'
_REMOVED = '.removed.'


def found(directory):
  """Step -> its folder; the replaced one where the new one did not come.

  Args:
    directory: need not exist, and nothing is written there.
  """
  directory = pathlib.Path(directory)
  return {
    int(path.name): path
    for folder in (directory / _REPLACED, directory)
    if folder.is_dir()
    for path in folder.iterdir()
    if path.name.isdecimal() and path.is_dir()
  }


@contextlib.contextmanager
def replaced(directory, step):
  """Moves a step out of the way of a new one, and back if none comes.

  Raises:
    OSError: it cannot be moved.
  """
  mend(directory)
  waiting = pathlib.Path(directory, _REPLACED, str(step))
  try:
    waiting.parent.mkdir(exist_ok=True)
    os.replace(pathlib.Path(directory, str(step)), waiting)
    yield
  finally:
    mend(directory)


def remove(directory, step):
  """Deletes a step, of which no half is ever found in its place.

  Raises:
    OSError: it cannot be moved.
  """
  # Beside it, because a disk may be too full for one more folder.
  removed = pathlib.Path(directory, f'{_REMOVED}{step}')
  _delete(removed)
  with contextlib.suppress(FileNotFoundError):
    os.replace(pathlib.Path(directory, str(step)), removed)
  _delete(removed)


def mend(directory):
  """Gives back what was replaced and did not come; ends what was begun.

  Raises:
    OSError: it cannot be moved.
  """
  for path in pathlib.Path(directory).glob(f'{_REMOVED}*'):
    _delete(path)
  waiting = pathlib.Path(directory, _REPLACED)
  if not waiting.is_dir():
    return
  for path in waiting.iterdir():
    place = pathlib.Path(directory, path.name)
    if not place.exists():
      os.replace(path, place)
  _delete(waiting)


def _delete(folder):
  # What cannot be deleted harms nobody, and the next one tries again.
  shutil.rmtree(folder, ignore_errors=True)
