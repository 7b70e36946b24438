"""What one program of a kernel computes, at the sizes that there are."""

from typing import NamedTuple


class Tile(NamedTuple):
  """What one program of a kernel computes.

  Attributes:
    rows, columns, channels: powers of 2, of the tile that it has at a time.
    steps: tiles, one below the other.
    warps: of 32 threads.
  """

  rows: int
  columns: int
  channels: int = 64
  steps: int = 1
  warps: int = 4


def forward_tile(out_hw):
  """The `Tile` of `conv` for such an output: the fastest on an H100."""
  columns = 16 if out_hw[1] > 8 else 8
  rows = (64 if out_hw[1] > 16 else 32) // columns
  return Tile(rows, columns)


def backward_tile(in_hw):
  """The `Tile` of `gradients` for such an input: the fastest on an H100."""
  height, width = in_hw
  if width <= 8:
    return Tile(2, 8, steps=divide(height, 2))
  steps = 28 if width > 28 else 14
  return Tile(
    1, 16, steps=min(height, steps), warps=8 if 16 < width <= 28 else 4
  )


def divide(size, by):
  """Rounded up."""
  return -(-size // by)
