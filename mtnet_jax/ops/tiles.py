"""What programs of a depthwise kernel have: their tiles, and access to these.

Pallas is imported where a kernel is traced, since most programs have none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Along a side of a kernel.
TAPS = 3


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


class Geometry(NamedTuple):
  """Sizes of a convolution, as the kernels need them."""

  batch: int
  in_hw: tuple[int, int]
  out_hw: tuple[int, int]
  channels: int
  stride: int
  dilation: int


def geometry(x, stride, dilation):
  """The `Geometry` of x (B, H, W, C) and these steps."""
  batch, *in_hw, channels = x.shape
  out_hw = tuple(divide(size, stride) for size in in_hw)
  return Geometry(batch, tuple(in_hw), out_hw, channels, stride, dilation)


def grid(sizes, hw, tile):
  """Programs: blocks of channels first, whose lines lie side by side."""
  return (
    divide(sizes.channels, tile.channels),
    divide(hw[0], tile.rows * tile.steps) * divide(hw[1], tile.columns),
    sizes.batch,
  )


def place(hw, tile):
  """This program's image, first row, columns (P,), and channels (C',)."""
  from jax.experimental import pallas as pl

  across = divide(hw[1], tile.columns)
  number = pl.program_id(1)
  pixels = jnp.arange(tile.rows * tile.columns)
  rows = number // across * (tile.rows * tile.steps) + pixels // tile.columns
  columns = number % across * tile.columns + pixels % tile.columns
  channels = pl.program_id(0) * tile.channels + jnp.arange(tile.channels)
  return pl.program_id(2), rows, columns, channels


def inside(rows, columns, hw):
  """Whether pixels are of the image."""
  height, width = hw
  return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


def pixels(image, rows, columns, hw):
  """Places of pixels among those of all images, row by row."""
  return (image * hw[0] + rows) * hw[1] + columns


def load(ref, pixels, channels, mask):
  """(P, C') in float32; 0 where the mask is not."""
  from jax.experimental.pallas import triton as plgpu

  values = plgpu.load(
    ref.at[pixels[:, None], channels[None, :]], mask=mask, other=0
  )
  return values.astype(jnp.float32)


def load_taps(ref, channels, count):
  """The kernel's nine (C',), in float32."""
  from jax.experimental.pallas import triton as plgpu

  return [
    plgpu.load(ref.at[tap, channels], mask=channels < count, other=0).astype(
      jnp.float32
    )
    for tap in range(TAPS * TAPS)
  ]


def spread(taps, tile):
  """Each tap over the pixels of a tile: (P, C')."""
  shape = (tile.rows * tile.columns, tile.channels)
  return [jnp.broadcast_to(tap[None, :], shape) for tap in taps]


def _multiply_add_on_gpu(x, y, z):
  from jax.experimental.pallas import triton as plgpu

  # Written out, for Triton within XLA does not join the two.
  (out,) = plgpu.elementwise_inline_asm(
    'fma.rn.f32 $0, $1, $2, $3;',
    args=[x, y, z],
    constraints='=f,f,f,f',
    pack=1,
    result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, x.dtype)],
  )
  return out


def multiply_add(interpret):
  """(x, y, z) -> x * y + z."""
  return (lambda x, y, z: x * y + z) if interpret else _multiply_add_on_gpu
