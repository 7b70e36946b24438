"""Trained models that come with the package, by name."""

import pathlib

import mtnet_jax
from mtnet_jax.system import errors
from mtnet_jax.system import paths

# Each is a bundle, whose README says what it was trained on.
_FOLDER = pathlib.Path(mtnet_jax.__file__).parent / 'shipped'


def names():
  """The names there are, sorted."""
  return sorted(path.parent.name for path in _FOLDER.glob('*/manifest.json'))


def is_shipped(folder):
  """Whether a folder is one of the package's own."""
  return pathlib.Path(folder).resolve().parent == _FOLDER.resolve()


def folder_of(path, *, kinds='a run directory, a bundle'):
  """The folder of a trained model on this disk.

  Args:
    path: where it is, or the name of a shipped one. A folder of that name in
      the working directory comes first.
    kinds: what else `path` may be, for the message.

  Returns:
    `pathlib.Path`.

  Raises:
    errors.InputError: it is neither.
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
