"""Paths as users write them, with `~` for their home folder.

A shell expands `~/x`, and leaves `--data_dir=~/x` as it is.
"""

import os

from tfds_lidc import errors


def expand(path: str | os.PathLike) -> str:
  """A path with its `~` expanded.

  Raises:
    InputError: there is no such home folder.
  """
  expanded = os.path.expanduser(os.fspath(path))
  if expanded.startswith('~'):
    raise errors.InputError(
      f'there is no home folder for {path}; write the whole path'
    )
  return expanded
