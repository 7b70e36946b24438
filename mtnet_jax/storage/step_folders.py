"""Replaces and deletes folders of saved steps, in a stage's `latest` or `best`.

    DIR/<step>              what Orbax saved
    DIR/.replaced/<step>    the old version of a step that is saved again
    DIR/.removed.<step>     a step that is being deleted

Orbax does not take the hidden names for steps. A process that is killed leaves
them behind, and `mend` finishes or undoes what it was doing.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

_REPLACED = '.replaced'
_REMOVED = '.removed.'


def found(directory: str | os.PathLike[str]) -> dict[int, pathlib.Path]:
  """Returns step -> folder, with the old folder if the new one is missing.

  Args:
    directory: the folder of all steps, which need not exist. Nothing is
      written there.
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
def replaced(directory: str | os.PathLike[str], step: int) -> Iterator[None]:
  """Moves a step away while the block saves it again, and back if it fails.

  Raises:
    OSError: the step cannot be moved.
  """
  mend(directory)
  waiting = pathlib.Path(directory, _REPLACED, str(step))
  try:
    waiting.parent.mkdir(exist_ok=True)
    os.replace(pathlib.Path(directory, str(step)), waiting)
    yield
  finally:
    mend(directory)


def remove(directory: str | os.PathLike[str], step: int) -> None:
  """Deletes a step; no half-deleted step is ever found under its name.

  Raises:
    OSError: the step cannot be moved.
  """
  # It is renamed where it is, since a full disk has no room for a new folder.
  removed = pathlib.Path(directory, f'{_REMOVED}{step}')
  _delete(removed)
  with contextlib.suppress(FileNotFoundError):
    os.replace(pathlib.Path(directory, str(step)), removed)
  _delete(removed)


def mend(directory: str | os.PathLike[str]) -> None:
  """Finishes deletions, and restores old steps whose new version is missing.

  Raises:
    OSError: a step cannot be moved.
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
  # A folder that cannot be deleted does no harm, and the next `mend` retries.
  shutil.rmtree(folder, ignore_errors=True)
