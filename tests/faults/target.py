"""The type of the fuzzer's targets."""

from collections.abc import Callable
import pathlib
import random
import tempfile
from typing import NamedTuple

Case = dict[str, bytes]


class Refused(Exception):  # noqa: N818
  """Raised by a target if its reader reports a fault without raising."""


class Target(NamedTuple):
  """A reader and the damaged files that it gets.

  Attributes:
    share: relative number of inputs.
    corpus: function that returns intact cases.
    damage: function (rng, case, another case) -> damaged case.
    read: function that reads a folder with the files of a case.
  """

  share: float
  corpus: Callable[[], list[Case]]
  damage: Callable[[random.Random, Case, Case], Case]
  read: Callable[[pathlib.Path], object]


def written(write) -> Case:
  """Returns the files that `write` writes into a folder."""
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write(folder)
    return {
      str(path.relative_to(folder)): path.read_bytes()
      for path in sorted(folder.rglob('*'))
      if path.is_file()
    }
