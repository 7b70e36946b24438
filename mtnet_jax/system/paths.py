"""Expands `~` in the paths that users write.

A shell expands `~/x`, but not `--out=~/x`.
"""

import os
from typing import Any

from mtnet_jax.system import errors


def expand(path: str | os.PathLike[str]) -> str:
  """Expands a leading `~` or `~user`; URLs and other paths stay unchanged.

  Raises:
    errors.InputError: there is no such home folder.
  """
  expanded = os.path.expanduser(path)
  if expanded.startswith('~'):
    raise errors.InputError(
      f'there is no home folder for {path}: give the full path.'
    )
  return expanded


def same(one: Any, other: Any) -> bool:
  """Returns whether two config values are equal once `~` is expanded."""

  def expanded(value):
    # `expand` would raise an error where a home folder no longer exists.
    return os.path.expanduser(value) if isinstance(value, str) else value

  return expanded(one) == expanded(other)
