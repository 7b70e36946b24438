"""The type of guards; see `guards`."""

from typing import NamedTuple


class Guard(NamedTuple):
  """A piece of source code that keeps out faults, and the tests that need it.

  Attributes:
    file: path from the root of the repository.
    text: source text of the guard, which occurs once in the file.
    without: text that replaces it to remove the guard.
    tests: arguments of pytest; these tests must fail without the guard.
  """

  file: str
  text: str
  without: str
  tests: str
