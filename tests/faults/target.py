"""What a target of the fuzzer is."""

from collections.abc import Callable
import pathlib
import random
import tempfile
from typing import NamedTuple

Case = dict[str, bytes]


class Refused(Exception):  # noqa: N818
  """A reader returned what is wrong with the file."""


class Target(NamedTuple):
  """A reader, and what to give it.

  Attributes:
    share: of the inputs.
    corpus: writes sound cases.
    damage: (rng, case, another) -> a damaged case.
    read: reads a folder.
  """

  share: float
  corpus: Callable[[], list[Case]]
  damage: Callable[[random.Random, Case, Case], Case]
  read: Callable[[pathlib.Path], object]


def written(write) -> Case:
  """What `write` writes into a folder."""
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write(folder)
    return {
      str(path.relative_to(folder)): path.read_bytes()
      for path in sorted(folder.rglob('*'))
      if path.is_file()
    }
