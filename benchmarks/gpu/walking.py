"""Depthwise kernels that walk down the rows: candidates for `ops`.

Those of `ops.depthwise_triton` read every pixel nine times from the card's
cache, and convert it as often. These read a row three times, once per column of
taps, and add it to the three rows of results that it belongs to; the two that
are not complete stay in registers. So there are a third of the reads and of the
conversions, and two rows more per program. Stride and dilation are 1.
"""

import functools

import jax
import jax.numpy as jnp

from mtnet_jax.ops import tiles


def conv(x, kernel, *, tile, interpret=False):
  """As `depthwise_triton.conv`; the tile is of one row."""
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton as plgpu

  sizes = tiles.geometry(x, 1, 1)
  y = pl.pallas_call(
    functools.partial(
      _forward_kernel,
      sizes=sizes,
      tile=tile,
      multiply_add=tiles.multiply_add(interpret),
    ),
    out_shape=jax.ShapeDtypeStruct(
      (x.size // x.shape[-1], x.shape[-1]), x.dtype
    ),
    grid=tiles.grid(sizes, sizes.out_hw, tile),
    compiler_params=plgpu.CompilerParams(num_warps=tile.warps),
    interpret=interpret,
    name='depthwise_forward_walking',
  )(*(array.reshape(-1, x.shape[-1]) for array in (x, kernel)))
  return y.reshape(x.shape)


def gradients(x, kernel, grad, *, tile, interpret=False):
  """As `depthwise_triton.gradients`; the tile is of one row."""
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton as plgpu

  sizes = tiles.geometry(x, 1, 1)
  grid = tiles.grid(sizes, sizes.in_hw, tile)
  channels = x.shape[-1]
  grad_x, sums = pl.pallas_call(
    functools.partial(
      _backward_kernel,
      sizes=sizes,
      tile=tile,
      multiply_add=tiles.multiply_add(interpret),
    ),
    out_shape=(
      jax.ShapeDtypeStruct((x.size // channels, channels), x.dtype),
      jax.ShapeDtypeStruct(
        (grid[1] * grid[2], tiles.TAPS * tiles.TAPS, channels), jnp.float32
      ),
    ),
    grid=grid,
    compiler_params=plgpu.CompilerParams(num_warps=tile.warps),
    interpret=interpret,
    name='depthwise_backward_walking',
  )(*(array.reshape(-1, channels) for array in (x, kernel, grad)))
  grad_kernel = jnp.sum(sums, 0).reshape(kernel.shape).astype(kernel.dtype)
  return grad_x.reshape(x.shape), grad_kernel


class _Columns:
  """What a program reads and writes: some columns, row by row.

  Attributes:
    first: the row where it begins, of every pixel of the tile: (P,).
    zeros: (P, C').
  """

  def __init__(self, kernel_ref, *, sizes, tile, multiply_add):
    place = tiles.coordinates(sizes.in_hw, tile)
    self._image, self.first, self._columns, self.channels = place
    self._hw, self._multiply_add = sizes.in_hw, multiply_add
    self.own = self.channels < sizes.channels
    taps = tiles.load_taps(kernel_ref, self.channels, sizes.channels)
    self._taps = tiles.spread(taps, tile)
    self.zeros = jnp.zeros((tile.columns, tile.channels), jnp.float32)

  def _pixels(self, rows, columns):
    return tiles.pixels(self._image, rows, columns, self._hw)

  def read(self, ref, rows, right=0, only=True):
    """A row, shifted by some columns; 0 outside of the image."""
    columns = self._columns + right
    inside = tiles.inside(rows, columns, self._hw) & only
    return tiles.load(
      ref,
      self._pixels(rows, columns),
      self.channels,
      inside[:, None] & self.own[None, :],
    )

  def write(self, ref, rows, values, only=True):
    """Writes a row, where it is in the image."""
    from jax.experimental.pallas import triton as plgpu

    inside = tiles.inside(rows, self._columns, self._hw) & only
    pixels = self._pixels(rows, self._columns)
    plgpu.store(
      ref.at[pixels[:, None], self.channels[None, :]],
      values.astype(ref.dtype),
      mask=inside[:, None] & self.own[None, :],
    )

  def add(self, values, row_of_taps, total):
    """Adds three shifted rows, each times its tap."""
    for column, each in enumerate(values):
      tap = self._taps[tiles.TAPS * row_of_taps + column]
      total = self._multiply_add(each, tap, total)
    return total


def _forward_kernel(x_ref, kernel_ref, y_ref, *, sizes, tile, **options):
  columns = _Columns(kernel_ref, sizes=sizes, tile=tile, **options)

  def read(rows):
    return [columns.read(x_ref, rows, right) for right in (-1, 0, 1)]

  above, here = read(columns.first - 1), read(columns.first)
  upper = columns.add(here, 1, columns.add(above, 0, columns.zeros))
  lower = columns.add(here, 0, columns.zeros)

  def walk(step, carry):
    upper, lower = carry
    rows = columns.first + step
    below = read(rows + 1)
    columns.write(y_ref, rows, columns.add(below, 2, upper))
    return columns.add(below, 1, lower), columns.add(below, 0, columns.zeros)

  jax.lax.fori_loop(0, tile.steps, walk, (upper, lower))


def _backward_kernel(
  x_ref,
  kernel_ref,
  grad_ref,
  grad_x_ref,
  sums_ref,
  *,
  sizes,
  tile,
  multiply_add,
):
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton as plgpu

  columns = _Columns(
    kernel_ref, sizes=sizes, tile=tile, multiply_add=multiply_add
  )

  def is_own(rows):
    return (rows >= columns.first) & (rows < columns.first + tile.steps)

  def walk(step, carry):
    before, here, upper, lower, sums = carry
    # A row of the output's gradient, which met the rows around it.
    rows = columns.first + step - 1
    after = columns.read(x_ref, rows + 1, only=is_own(rows + 1))
    grads = [columns.read(grad_ref, rows, right) for right in (1, 0, -1)]
    complete = columns.add(grads, 0, upper)
    columns.write(grad_x_ref, rows - 1, complete, only=is_own(rows - 1))
    sums = tuple(
      multiply_add(values, each, sums[tiles.TAPS * i + j])
      for i, values in enumerate((before, here, after))
      for j, each in enumerate(grads)
    )
    upper = columns.add(grads, 1, lower)
    lower = columns.add(grads, 2, columns.zeros)
    return here, after, upper, lower, sums

  zeros = columns.zeros
  *_, sums = jax.lax.fori_loop(
    0,
    tile.steps + 2,
    walk,
    (zeros, zeros, zeros, zeros, (zeros,) * (tiles.TAPS * tiles.TAPS)),
  )
  program = pl.program_id(2) * pl.num_programs(1) + pl.program_id(1)
  for tap, one in enumerate(sums):
    plgpu.store(
      sums_ref.at[program, tap, columns.channels],
      jnp.sum(one, 0),
      mask=columns.own,
    )
