"""Finds trained models that come with the package, by name."""

import os
import pathlib

import mtnet_jax
from mtnet_jax.system import errors
from mtnet_jax.system import paths

# Each model is a bundle; its README.md says what it was trained on.
_FOLDER = pathlib.Path(mtnet_jax.__file__).parent / 'shipped'


def names() -> list[str]:
  """Returns the names of all shipped models, sorted."""
  return sorted(path.parent.name for path in _FOLDER.glob('*/manifest.json'))


def is_shipped(folder: str | os.PathLike[str]) -> bool:
  """Returns whether a folder is that of a shipped model."""
  return pathlib.Path(folder).resolve().parent == _FOLDER.resolve()


def folder_of(
  path: str | os.PathLike[str], *, kinds: str = 'a run directory, a bundle'
) -> pathlib.Path:
  """Returns the folder of a trained model.

  Args:
    path: a folder, or the name of a shipped model. A folder of that name in the
      working directory comes first.
    kinds: what the folder may be, for the message.

  Raises:
    errors.InputError: `path` is neither.
  """
  folder = pathlib.Path(paths.expand(path))
  if not folder.exists() and str(path) in names():
    return _FOLDER / str(path)
  if not folder.is_dir():
    what = 'is a file, not a folder' if folder.exists() else 'does not exist'
    listed = ', '.join(names()) or 'there is none'
    raise errors.InputError(
      f'{path} {what}: give {kinds}, or the name of a model that comes with'
      f' mtnet_jax ({listed}).'
    )
  return folder
