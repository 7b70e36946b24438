"""Trained models that come with the package, by name."""

import pathlib

import mtnet_jax

# Each is a bundle, whose README says what it was trained on.
_FOLDER = pathlib.Path(mtnet_jax.__file__).parent / 'shipped'


def names():
  """The names there are, sorted."""
  return sorted(path.parent.name for path in _FOLDER.glob('*/manifest.json'))


def listed():
  """The names in one text."""
  return ', '.join(names()) or 'there is none'


def find(path):
  """The folder of a shipped model where `path` is its name, otherwise `path`.

  A folder of that name in the working directory comes first.
  """
  if str(path) in names() and not pathlib.Path(path).exists():
    return _FOLDER / str(path)
  return path
