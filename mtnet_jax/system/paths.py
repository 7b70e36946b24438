"""Paths as users write them, with `~` for their home folder.

A shell expands `~/x`, and leaves `--out=~/x` as it is.
"""

import os

from mtnet_jax.system import errors


def expand(path):
  """A path with its `~` expanded, as text; a URL stays as it is.

  Raises:
    errors.InputError: there is no such home folder.
  """
  expanded = os.path.expanduser(path)
  if expanded.startswith('~'):
    raise errors.InputError(
      f'there is no home folder for {path}: write the whole path.'
    )
  return expanded


def same(one, other):
  """Whether two values of a config are equal, or name the same path."""

  def expanded(value):
    # Not `expand`: a home folder that is gone is no matter here.
    return os.path.expanduser(value) if isinstance(value, str) else value

  return expanded(one) == expanded(other)
