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
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtnet_jax.ops import tiles

_TAPS = 3
_TYPES = (jnp.bfloat16, jnp.float32)


class _Geometry(NamedTuple):
  """Sizes of a convolution, as the kernels need them."""

  batch: int
  in_hw: tuple[int, int]
  out_hw: tuple[int, int]
  channels: int
  stride: int
  dilation: int


def supports(x, kernel):
  """Whether these have kernels here: 3 x 3, in types that cards compute in."""
  is_known = kernel.shape[0] == _TAPS and x.dtype in _TYPES
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

  sizes = _geometry(x, stride, dilation)
  tile = tile or tiles.forward_tile(sizes.out_hw)
  grid = _grid(sizes, sizes.out_hw, tile)
  y = pl.pallas_call(
    functools.partial(
      _forward_kernel,
      sizes=sizes,
      relu=relu,
      tile=tile,
      multiply_add=_multiply_add(interpret),
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

  sizes = _geometry(x, stride, dilation)
  tile = tile or tiles.backward_tile(sizes.in_hw)
  grid = _grid(sizes, sizes.in_hw, tile)
  grad_x, sums = pl.pallas_call(
    functools.partial(
      _backward_kernel,
      sizes=sizes,
      relu=relu,
      tile=tile,
      multiply_add=_multiply_add(interpret),
    ),
    out_shape=(
      jax.ShapeDtypeStruct((x.size // sizes.channels, sizes.channels), x.dtype),
      jax.ShapeDtypeStruct(
        (grid[1] * grid[2], _TAPS * _TAPS, sizes.channels), jnp.float32
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


def _geometry(x, stride, dilation):
  batch, *in_hw, channels = x.shape
  out_hw = tuple(tiles.divide(size, stride) for size in in_hw)
  return _Geometry(batch, tuple(in_hw), out_hw, channels, stride, dilation)


def _grid(sizes, hw, tile):
  """Programs: blocks of channels first, whose lines lie side by side."""
  return (
    tiles.divide(sizes.channels, tile.channels),
    tiles.divide(hw[0], tile.rows * tile.steps)
    * tiles.divide(hw[1], tile.columns),
    sizes.batch,
  )


def _place(hw, tile):
  """This program's image, first row, columns (P,), and channels (C',)."""
  from jax.experimental import pallas as pl

  across = tiles.divide(hw[1], tile.columns)
  number = pl.program_id(1)
  pixels = jnp.arange(tile.rows * tile.columns)
  rows = number // across * (tile.rows * tile.steps) + pixels // tile.columns
  columns = number % across * tile.columns + pixels % tile.columns
  channels = pl.program_id(0) * tile.channels + jnp.arange(tile.channels)
  return pl.program_id(2), rows, columns, channels


def _inside(rows, columns, hw):
  height, width = hw
  return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


def _load(ref, pixels, channels, mask):
  """(P, C') in float32; 0 where the mask is not."""
  from jax.experimental.pallas import triton as plgpu

  values = plgpu.load(
    ref.at[pixels[:, None], channels[None, :]], mask=mask, other=0
  )
  return values.astype(jnp.float32)


def _relu(values):
  # Triton's maximum of NaN and 0 is 0, and nobody would hear of the NaN.
  return jnp.where(values <= 0, 0, values)


def _load_taps(ref, channels, count):
  """The kernel's nine (C',), in float32."""
  from jax.experimental.pallas import triton as plgpu

  return [
    plgpu.load(ref.at[tap, channels], mask=channels < count, other=0).astype(
      jnp.float32
    )
    for tap in range(_TAPS * _TAPS)
  ]


def _spread(taps, tile):
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


def _multiply_add(interpret):
  """(x, y, z) -> x * y + z."""
  return (lambda x, y, z: x * y + z) if interpret else _multiply_add_on_gpu


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

  image, rows, columns, channels = _place(sizes.out_hw, tile)
  own = channels < sizes.channels
  taps = _load_taps(kernel_ref, channels, sizes.channels)
  spread = _spread(taps, tile)

  def compute(step):
    out_rows = rows + step * tile.rows
    written = _inside(out_rows, columns, sizes.out_hw)
    total = jnp.zeros((tile.rows * tile.columns, tile.channels), jnp.float32)
    for tap, down, right in _offsets(sizes.dilation):
      in_rows = out_rows * sizes.stride + down
      in_columns = columns * sizes.stride + right
      read = written & _inside(in_rows, in_columns, sizes.in_hw)
      pixels = (image * sizes.in_hw[0] + in_rows) * sizes.in_hw[1] + in_columns
      values = _load(x_ref, pixels, channels, read[:, None] & own[None, :])
      values = _relu(values) if relu else values
      total = multiply_add(values, spread[tap], total)
    pixels = (image * sizes.out_hw[0] + out_rows) * sizes.out_hw[1] + columns
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

  image, rows, columns, channels = _place(sizes.in_hw, tile)
  own = channels < sizes.channels
  taps = _load_taps(kernel_ref, channels, sizes.channels)
  spread = _spread(taps, tile)

  def compute(step, sums):
    in_rows = rows + step * tile.rows
    inside = _inside(in_rows, columns, sizes.in_hw)
    pixels = (image * sizes.in_hw[0] + in_rows) * sizes.in_hw[1] + columns
    mask = inside[:, None] & own[None, :]
    values = _load(x_ref, pixels, channels, mask)
    positive = values > 0
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
      met &= _inside(out_rows, out_columns, sizes.out_hw)
      out_pixels = (image * sizes.out_hw[0] + out_rows) * sizes.out_hw[
        1
      ] + out_columns
      grads = _load(grad_ref, out_pixels, channels, met[:, None] & own[None, :])
      total = multiply_add(grads, spread[tap], total)
      added.append(multiply_add(grads, values, sums[tap]))
    total = jnp.where(positive, total, 0) if relu else total
    plgpu.store(
      grad_x_ref.at[pixels[:, None], channels[None, :]],
      total.astype(grad_x_ref.dtype),
      mask=mask,
    )
    return tuple(added)

  zeros = jnp.zeros((tile.rows * tile.columns, tile.channels), jnp.float32)
  sums = jax.lax.fori_loop(0, tile.steps, compute, (zeros,) * (_TAPS * _TAPS))
  program = pl.program_id(2) * pl.num_programs(1) + pl.program_id(1)
  for tap, one in enumerate(sums):
    plgpu.store(sums_ref.at[program, tap, channels], jnp.sum(one, 0), mask=own)
