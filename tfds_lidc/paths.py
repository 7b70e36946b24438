"""Paths as users write them, with `~` for their home folder.

A shell expands `~/x`, and leaves `--data_dir=~/x` as it is.
"""

import errno
import os
import stat
from typing import BinaryIO

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


def open_file(path: str | os.PathLike) -> BinaryIO:
  """Opens an ordinary file; a pipe would keep its reader waiting for ever.

  Raises:
    OSError: it is none, or cannot be read.
  """
  # Not every system has the flag, and those that lack it have no such pipes.
  flags = getattr(os, 'O_NONBLOCK', 0)
  file = open(path, 'rb', opener=lambda name, mode: os.open(name, mode | flags))
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise OSError(errno.EINVAL, 'it is no ordinary file')
  return file
