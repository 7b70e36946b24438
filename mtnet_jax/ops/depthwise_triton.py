"""3 x 3 depthwise convolutions as one-pass kernels for NVIDIA GPUs.

XLA computes the kernel gradient as a sum per tap, and reads both arrays once
for every two taps. Here, one GPU kernel reads the input and the output gradient
once and computes both gradients, because both need the same shifted output
gradients: their weighted sum is the input gradient, and their products with the
input add up to the kernel gradient.

The GPU kernels are written in Pallas for its Triton backend. Each program
handles a block of channels of a tile of pixels, so that it reads whole cache
lines, and finds the pixels that it shares with neighbouring tiles in the cache.
"""

from collections.abc import Callable
import functools
import importlib

import jax
import jax.numpy as jnp

from mtnet_jax.ops import tiles

_TYPES = (jnp.bfloat16, jnp.float32)


def supports(x: jax.Array, kernel: jax.Array) -> bool:
  """Whether the GPU kernels support this convolution."""
  is_known = kernel.shape[0] == tiles.TAPS and x.dtype in _TYPES
  return is_known and _has_backend()


@functools.cache
def _has_backend():
  # JAX 0.11 still has this backend, but announces its removal.
  try:
    importlib.import_module('jax.experimental.pallas.triton')
  except ImportError:
    return False
  return True


def conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int,
  dilation: int,
  relu: bool = False,
  tile: tiles.Tile | None = None,
  interpret: bool = False,
) -> jax.Array:
  """Computes a depthwise 3 x 3 convolution with "same" padding.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, 1, C).
    stride: step between output pixels.
    dilation: step between taps.
    relu: whether to convolve relu(x), which is never written to memory.
    tile: tile of one program; None for one that suits the sizes.
    interpret: whether JAX interprets the kernel without a GPU, for tests.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), C), of x's type. Sums are float32.
  """
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton as plgpu

  sizes = tiles.geometry(x, stride, dilation)
  tile = tile or tiles.forward_tile(sizes.out_hw)
  grid = tiles.grid(sizes, sizes.out_hw, tile)
  y = pl.pallas_call(
    functools.partial(
      _forward_kernel,
      sizes=sizes,
      relu=relu,
      tile=tile,
      multiply_add=tiles.multiply_add(interpret),
    ),
    out_shape=jax.ShapeDtypeStruct(
      (sizes.batch * sizes.out_hw[0] * sizes.out_hw[1], sizes.channels), x.dtype
    ),
    grid=grid,
    compiler_params=plgpu.CompilerParams(num_warps=tile.warps),
    interpret=interpret,
    name='depthwise_forward',
  )(x.reshape(-1, sizes.channels), kernel.reshape(-1, sizes.channels))
  return y.reshape(sizes.batch, *sizes.out_hw, sizes.channels)


def gradients(
  x: jax.Array,
  kernel: jax.Array,
  grad: jax.Array,
  *,
  stride: int,
  dilation: int,
  relu: bool = False,
  tile: tiles.Tile | None = None,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Computes both gradients of `conv`.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, 1, C).
    grad: gradient of the output of `conv`.
    stride: as in `conv`.
    dilation: as in `conv`.
    relu: as in `conv`.
    tile: tile of one program; None for one that suits the sizes.
    interpret: as in `conv`.

  Returns:
    The gradients of x and of the kernel, of their types. Sums are float32.
  """
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton as plgpu

  sizes = tiles.geometry(x, stride, dilation)
  tile = tile or tiles.backward_tile(sizes.in_hw)
  grid = tiles.grid(sizes, sizes.in_hw, tile)
  grad_x, sums = pl.pallas_call(
    functools.partial(
      _backward_kernel,
      sizes=sizes,
      relu=relu,
      tile=tile,
      multiply_add=tiles.multiply_add(interpret),
    ),
    out_shape=(
      jax.ShapeDtypeStruct((x.size // sizes.channels, sizes.channels), x.dtype),
      jax.ShapeDtypeStruct(
        (grid[1] * grid[2], tiles.TAPS * tiles.TAPS, sizes.channels),
        jnp.float32,
      ),
    ),
    grid=grid,
    compiler_params=plgpu.CompilerParams(num_warps=tile.warps),
    interpret=interpret,
    name='depthwise_backward',
  )(
    x.reshape(-1, sizes.channels),
    kernel.reshape(-1, sizes.channels),
    grad.reshape(-1, sizes.channels),
  )
  grad_kernel = jnp.sum(sums, 0).reshape(kernel.shape)
  return grad_x.reshape(x.shape), grad_kernel.astype(kernel.dtype)


def _relu(values):
  # Not a maximum: Triton's maximum of NaN and 0 is 0, which would hide NaNs.
  return jnp.where(values <= 0, 0, values)


def _offsets(dilation):
  """Returns (tap, rows down, columns right) for each tap."""
  steps = range(-dilation, dilation + 1, dilation)
  return [
    (tap, *offset)
    for tap, offset in enumerate((i, j) for i in steps for j in steps)
  ]


def _forward_kernel(
  x_ref, kernel_ref, y_ref, *, sizes, relu, tile, multiply_add
):
  from jax.experimental.pallas import triton as plgpu

  image, rows, columns, channels = tiles.coordinates(sizes.out_hw, tile)
  own = channels < sizes.channels
  taps = tiles.load_taps(kernel_ref, channels, sizes.channels)
  spread = tiles.spread(taps, tile)

  def compute(step):
    out_rows = rows + step * tile.rows
    written = tiles.inside(out_rows, columns, sizes.out_hw)
    total = jnp.zeros((tile.rows * tile.columns, tile.channels), jnp.float32)
    for tap, down, right in _offsets(sizes.dilation):
      in_rows = out_rows * sizes.stride + down
      in_columns = columns * sizes.stride + right
      read = written & tiles.inside(in_rows, in_columns, sizes.in_hw)
      pixels = tiles.pixels(image, in_rows, in_columns, sizes.in_hw)
      values = tiles.load(x_ref, pixels, channels, read[:, None] & own[None, :])
      values = _relu(values) if relu else values
      total = multiply_add(values, spread[tap], total)
    pixels = tiles.pixels(image, out_rows, columns, sizes.out_hw)
    plgpu.store(
      y_ref.at[pixels[:, None], channels[None, :]],
      total.astype(y_ref.dtype),
      mask=written[:, None] & own[None, :],
    )

  _repeat(compute, tile.steps)


def _repeat(function: Callable[..., None], steps: int) -> None:
  if steps == 1:
    function(0)
  else:
    jax.lax.fori_loop(0, steps, lambda step, _: function(step), None)


def _backward_kernel(
  x_ref,
  kernel_ref,
  grad_ref,
  grad_x_ref,
  sums_ref,
  *,
  sizes,
  relu,
  tile,
  multiply_add,
):
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import triton as plgpu

  image, rows, columns, channels = tiles.coordinates(sizes.in_hw, tile)
  own = channels < sizes.channels
  taps = tiles.load_taps(kernel_ref, channels, sizes.channels)
  spread = tiles.spread(taps, tile)

  def compute(step, sums):
    in_rows = rows + step * tile.rows
    inside = tiles.inside(in_rows, columns, sizes.in_hw)
    pixels = tiles.pixels(image, in_rows, columns, sizes.in_hw)
    mask = inside[:, None] & own[None, :]
    values = tiles.load(x_ref, pixels, channels, mask)
    values = _relu(values) if relu else values
    total = jnp.zeros_like(values)
    added = []
    for tap, down, right in _offsets(sizes.dilation):
      # The output pixel to which this tap has added the input pixel, if any.
      out_rows, out_columns = in_rows - down, columns - right
      has_output = inside
      if sizes.stride > 1:
        has_output &= out_rows % sizes.stride == 0
        has_output &= out_columns % sizes.stride == 0
        out_rows = out_rows // sizes.stride
        out_columns = out_columns // sizes.stride
      has_output &= tiles.inside(out_rows, out_columns, sizes.out_hw)
      out_pixels = tiles.pixels(image, out_rows, out_columns, sizes.out_hw)
      grads = tiles.load(
        grad_ref, out_pixels, channels, has_output[:, None] & own[None, :]
      )
      total = multiply_add(grads, spread[tap], total)
      added.append(multiply_add(grads, values, sums[tap]))
    total = jnp.where(values > 0, total, 0) if relu else total
    plgpu.store(
      grad_x_ref.at[pixels[:, None], channels[None, :]],
      total.astype(grad_x_ref.dtype),
      mask=mask,
    )
    return tuple(added)

  zeros = jnp.zeros((tile.rows * tile.columns, tile.channels), jnp.float32)
  sums = jax.lax.fori_loop(
    0, tile.steps, compute, (zeros,) * (tiles.TAPS * tiles.TAPS)
  )
  program = pl.program_id(2) * pl.num_programs(1) + pl.program_id(1)
  for tap, one in enumerate(sums):
    plgpu.store(sums_ref.at[program, tap, channels], jnp.sum(one, 0), mask=own)
