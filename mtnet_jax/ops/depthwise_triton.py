"""3 x 3 depthwise convolutions as kernels of one pass, for NVIDIA's GPUs.

XLA computes the kernel gradient as a sum per tap, and reads both arrays for
every two taps. Here one kernel reads the input and the output gradient once and
gives both gradients: the shifted output gradients that the input gradient adds
up are those whose products with the input are the kernel gradient.

Written in Pallas for its Triton backend. A program has a block of channels of a
tile of pixels, so that reads are of whole lines and its neighbours' are in the
cache.
"""

import functools
import importlib

import jax
import jax.numpy as jnp

from mtnet_jax.ops import tiles

_TYPES = (jnp.bfloat16, jnp.float32)


def supports(x, kernel):
  """Whether these have kernels here: 3 x 3, in types that cards compute in."""
  is_known = kernel.shape[0] == tiles.TAPS and x.dtype in _TYPES
  return is_known and _has_backend()


@functools.cache
def _has_backend():
  # JAX 0.11 has it, and says that a later version will not.
  try:
    importlib.import_module('jax.experimental.pallas.triton')
  except ImportError:
    return False
  return True


def conv(
  x, kernel, *, stride, dilation, relu=False, tile=None, interpret=False
):
  """Depthwise 3 x 3 convolution with "same" padding.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, 1, C).
    stride: step between output pixels.
    dilation: step between taps.
    relu: convolves relu(x), which is written nowhere.
    tile: `tiles.Tile`; None for one that suits the sizes.
    interpret: computed by JAX instead of a GPU, for tests.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), C), of x's type; sums are float32.
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
  x,
  kernel,
  grad,
  *,
  stride,
  dilation,
  relu=False,
  tile=None,
  interpret=False,
):
  """Gradients of `conv`.

  Args:
    x, kernel, stride, dilation, relu, interpret: as in `conv`.
    grad: of its result.
    tile: `tiles.Tile`; None for one that suits the sizes.

  Returns:
    The gradients of x and of kernel, of their types; sums are float32.
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
  # Triton's maximum of NaN and 0 is 0, and nobody would hear of the NaN.
  return jnp.where(values <= 0, 0, values)


def _offsets(dilation):
  """(tap, rows down, columns right) of each tap."""
  steps = range(-dilation, dilation + 1, dilation)
  return [
    (tap, *offset)
    for tap, offset in enumerate((i, j) for i in steps for j in steps)
  ]


def _forward_kernel(
  x_ref, kernel_ref, y_ref, *, sizes, relu, tile, multiply_add
):
  from jax.experimental.pallas import triton as plgpu

  image, rows, columns, channels = tiles.place(sizes.out_hw, tile)
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


def _repeat(function, steps):
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

  image, rows, columns, channels = tiles.place(sizes.in_hw, tile)
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
      # The output pixel that met this one by this tap, if there is one.
      out_rows, out_columns = in_rows - down, columns - right
      met = inside
      if sizes.stride > 1:
        met &= out_rows % sizes.stride == 0
        met &= out_columns % sizes.stride == 0
        out_rows = out_rows // sizes.stride
        out_columns = out_columns // sizes.stride
      met &= tiles.inside(out_rows, out_columns, sizes.out_hw)
      out_pixels = tiles.pixels(image, out_rows, out_columns, sizes.out_hw)
      grads = tiles.load(
        grad_ref, out_pixels, channels, met[:, None] & own[None, :]
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
