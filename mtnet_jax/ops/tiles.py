"""Tiles of the depthwise GPU kernels, and access to their pixels.

A GPU kernel runs as many programs, each of which computes one or more tiles of
pixels and channels. In this file, P is the number of pixels of a tile, and C'
its number of channels.

Pallas is imported inside functions, because most users never trace a GPU
kernel.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Side of a convolution's kernel.
TAPS = 3


class Tile(NamedTuple):
  """What one program of a GPU kernel computes.

  Attributes:
    rows: rows of a tile, a power of 2.
    columns: columns of a tile, a power of 2.
    channels: channels of a tile, a power of 2.
    steps: number of tiles, one below the other.
    warps: number of warps, of 32 threads each.
  """

  rows: int
  columns: int
  channels: int = 64
  steps: int = 1
  warps: int = 4


def forward_tile(out_hw: tuple[int, int]) -> Tile:
  """Returns the tile of `conv` that is fastest on an H100."""
  columns = 16 if out_hw[1] > 8 else 8
  rows = (64 if out_hw[1] > 16 else 32) // columns
  return Tile(rows, columns)


def backward_tile(in_hw: tuple[int, int]) -> Tile:
  """Returns the tile of `gradients` that is fastest on an H100."""
  height, width = in_hw
  if width <= 8:
    return Tile(2, 8, steps=divide(height, 2))
  steps = 28 if width > 28 else 14
  return Tile(
    1, 16, steps=min(height, steps), warps=8 if 16 < width <= 28 else 4
  )


def divide(size: int, by: int) -> int:
  """Divides and rounds up."""
  return -(-size // by)


class Geometry(NamedTuple):
  """Sizes of a convolution.

  Attributes:
    batch: number of images.
    in_hw: (H, W) of the input.
    out_hw: (H, W) of the output.
    channels: number of channels.
    stride: step between output pixels.
    dilation: step between taps.
  """

  batch: int
  in_hw: tuple[int, int]
  out_hw: tuple[int, int]
  channels: int
  stride: int
  dilation: int


def geometry(x: jax.Array, stride: int, dilation: int) -> Geometry:
  """Returns the sizes of a "same" convolution of x (B, H, W, C)."""
  batch, height, width, channels = x.shape
  out_hw = divide(height, stride), divide(width, stride)
  return Geometry(batch, (height, width), out_hw, channels, stride, dilation)


def grid(
  sizes: Geometry, hw: tuple[int, int], tile: Tile
) -> tuple[int, int, int]:
  """Returns the number of programs: of blocks of channels, tiles, and images.

  The blocks of channels come first, so that programs that follow each other
  read adjacent memory.
  """
  return (
    divide(sizes.channels, tile.channels),
    divide(hw[0], tile.rows * tile.steps) * divide(hw[1], tile.columns),
    sizes.batch,
  )


def coordinates(
  hw: tuple[int, int], tile: Tile
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns where the first tile of the current program is.

  Args:
    hw: (H, W) of the image that is cut into tiles.
    tile: the tile of one program.

  Returns:
    The image; row and column of each pixel, (P,); and the channels, (C',).
  """
  from jax.experimental import pallas as pl

  across = divide(hw[1], tile.columns)
  number = pl.program_id(1)
  pixels = jnp.arange(tile.rows * tile.columns)
  rows = number // across * (tile.rows * tile.steps) + pixels // tile.columns
  columns = number % across * tile.columns + pixels % tile.columns
  channels = pl.program_id(0) * tile.channels + jnp.arange(tile.channels)
  return pl.program_id(2), rows, columns, channels


def inside(
  rows: jax.Array, columns: jax.Array, hw: tuple[int, int]
) -> jax.Array:
  """Returns whether each pixel is inside of the image, (P,)."""
  height, width = hw
  return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


def pixels(
  image: jax.Array, rows: jax.Array, columns: jax.Array, hw: tuple[int, int]
) -> jax.Array:
  """Returns the index of each pixel in the flattened batch, (P,)."""
  return (image * hw[0] + rows) * hw[1] + columns


def load(
  ref: Any, pixels: jax.Array, channels: jax.Array, mask: jax.Array
) -> jax.Array:
  """Reads pixels and channels, (P, C') float32; 0 where the mask is False."""
  from jax.experimental.pallas import triton as plgpu

  values = plgpu.load(
    ref.at[pixels[:, None], channels[None, :]], mask=mask, other=0
  )
  return values.astype(jnp.float32)


def load_taps(ref: Any, channels: jax.Array, count: int) -> list[jax.Array]:
  """Reads the nine taps of a convolution's kernel, (C',) float32 each.

  Args:
    ref: the kernel, (9, C).
    channels: (C',), the channels to read.
    count: C. Channels from there on are read as 0.
  """
  from jax.experimental.pallas import triton as plgpu

  return [
    plgpu.load(ref.at[tap, channels], mask=channels < count, other=0).astype(
      jnp.float32
    )
    for tap in range(TAPS * TAPS)
  ]


def spread(taps: list[jax.Array], tile: Tile) -> list[jax.Array]:
  """Broadcasts each tap (C',) over the pixels of a tile: (P, C')."""
  shape = (tile.rows * tile.columns, tile.channels)
  return [jnp.broadcast_to(tap[None, :], shape) for tap in taps]


def _multiply_add_on_gpu(x, y, z):
  from jax.experimental.pallas import triton as plgpu

  # In assembly, because Triton inside XLA does not fuse the two operations.
  (out,) = plgpu.elementwise_inline_asm(
    'fma.rn.f32 $0, $1, $2, $3;',
    args=[x, y, z],
    constraints='=f,f,f,f',
    pack=1,
    result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, x.dtype)],
  )
  return out


def multiply_add(interpret: bool) -> Callable[..., jax.Array]:
  """Returns the function (x, y, z) -> x * y + z, for a GPU or for JAX."""
  return (lambda x, y, z: x * y + z) if interpret else _multiply_add_on_gpu
