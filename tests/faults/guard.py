"""What a guard is; see `guards`."""

from typing import NamedTuple


class Guard(NamedTuple):
  """A guard in the source.

  Attributes:
    file: from the root.
    text: stands there exactly once.
    without: what stands there without the guard.
    tests: arguments of pytest, which must fail then.
  """

  file: str
  text: str
  without: str
  tests: str
