"""Expands `~` in paths that users give, and opens regular files only.

A shell expands `~/x`, but not the `~` in `--data_dir=~/x`.
"""

import errno
import os
import stat
from typing import BinaryIO

from tfds_lidc import errors


def expand(path: str | os.PathLike[str]) -> str:
  """Expands `~` at the beginning of a path.

  Raises:
    InputError: there is no such home folder.
  """
  expanded = os.path.expanduser(os.fspath(path))
  if expanded.startswith('~'):
    raise errors.InputError(
      f'there is no home folder for {path}; write the whole path'
    )
  return expanded


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
  """Opens a regular file; reading from a pipe could block for ever.

  Raises:
    OSError: it is no regular file, or cannot be read.
  """
  # Systems without this flag have no such pipes.
  flags = getattr(os, 'O_NONBLOCK', 0)
  file = open(path, 'rb', opener=lambda name, mode: os.open(name, mode | flags))
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise OSError(errno.EINVAL, 'it is not a regular file')
  return file
