"""Max-pooling with a hand-written gradient.

XLA's CPU backend computes the gradient of max-pooling in four passes over index
arrays as large as the input. Here the forward pass stores, in one byte per
output pixel, which pixel of its window was the largest, and the backward pass
sends the gradient there.
"""

from collections.abc import Sequence
import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import common


def max_pool(
  x: jax.Array,
  *,
  size: int = 3,
  stride: int = 2,
  padding: str = 'symmetric',
) -> jax.Array:
  """Computes the maximum of each window.

  Args:
    x: (B, H, W, C).
    size: window side; odd if the padding is symmetric.
    stride: step between windows.
    padding: 'symmetric' pads size // 2 on both sides, as PyTorch ports do.
      'same' pads as Keras does: if the total is odd, the extra row or column is
      at the end.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), C).

  Raises:
    ValueError: the padding is unknown.
  """
  pads: Sequence[tuple[int, int]]
  if padding == 'same':
    pads = lax.padtype_to_pads(
      x.shape[1:3], (size, size), (stride, stride), 'SAME'
    )
  elif padding == 'symmetric':
    pads = ((size // 2, size // 2),) * 2
  else:
    raise ValueError(
      f"padding={padding!r} is unknown; it must be 'same' or 'symmetric'."
    )
  return _pool(x, size, stride, tuple(map(tuple, pads)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool(x, size, stride, pads):
  return _largest(x, size, stride, pads)[0]


def _out_size(size, low_high, window, stride):
  return (size + sum(low_high) - window) // stride + 1


def _largest(x, size, stride, pads):
  """Returns the maximum of each window, and its tap (position in the window).

  Taps are numbered row by row. Among equal pixels the first one counts, as in
  PyTorch and XLA.
  """
  rows, columns = ((*low_high, 0) for low_high in pads)
  padded = common.pad(x, rows, columns, -jnp.inf)
  height, width = (
    _out_size(length, low_high, size, stride)
    for length, low_high in zip(x.shape[1:3], pads, strict=True)
  )
  best = which = None
  views = common.shifted_views(padded, size, (height, width), stride=stride)
  for tap, view in enumerate(views):
    if best is None:
      best, which = view, jnp.zeros(view.shape, jnp.int8)
    else:
      which = jnp.where(view > best, jnp.int8(tap), which)
      best = jnp.maximum(best, view)
  return best, which


def _forward(x, size, stride, pads):
  best, which = _largest(x, size, stride, pads)
  return best, (which, x.shape)


def _backward(size, stride, pads, residuals, grad):
  """Sums, for each pixel, the gradients of the windows whose maximum it is.

  An example in one dimension, with windows of 3 pixels and a stride of 2. The
  numbers are the taps of the padded pixels in each window:

      pixel      0  1 | 2  3 | 4  5 | 6
      window 0   0  1 | 2    |      |
      window 1        | 0  1 | 2    |
      window 2        |      | 0  1 | 2

  `which[i]` is the tap of the maximum of window i. Pixel 2 is tap 2 of window 0
  and tap 0 of window 1, so its gradient is

      where(which[0] == 2, grad[0], 0) + where(which[1] == 0, grad[1], 0).

  The padded input is cut into blocks of `stride` pixels, between the bars, and
  all pixels of a block are computed together. Block i has the taps (0, 1) of
  window i and the taps (2, none) of window i - 1:

      where(which[i] == (0, 1), grad[i], 0)
        + where(which[i - 1] == (2, none), grad[i - 1], 0).

  A block takes part in its own window and in `reach` windows before it; here
  `reach` is 1. (Computing each pixel of a block by itself would need a
  concatenation, which XLA compiles to a slow loop.)
  """
  which, shape = residuals
  # The number of blocks that cover the padded input.
  down, across = (
    -(-(length + sum(low_high)) // stride)
    for length, low_high in zip(shape[1:3], pads, strict=True)
  )
  reach = -(-size // stride) - 1

  def pad_windows(x, fill):
    """Pads by `reach` windows at the start, and to one per block at the end."""
    height, width = x.shape[1:3]
    return common.pad(
      x, (reach, down - height, 0), (reach, across - width, 0), fill
    )

  which, wide = lax.optimization_barrier(
    (pad_windows(which, -1), pad_windows(common.wide(grad), 0))
  )
  total = 0
  for up in range(reach + 1):
    for left in range(reach + 1):
      window = (
        slice(None),
        slice(reach - up, reach - up + down),
        None,
        slice(reach - left, reach - left + across),
        None,
      )
      taps = _taps(size, stride, up, left)[None, None, :, None, :, None]
      total += jnp.where(which[window] == taps, wide[window], 0)
  batch, channels = shape[0], shape[3]
  whole = total.reshape(batch, down * stride, across * stride, channels)
  (top, _), (left, _) = pads
  grad_x = whole[:, top : top + shape[1], left : left + shape[2]]
  return (grad_x.astype(grad.dtype),)


def _taps(size, stride, up, left):
  """Returns the taps of a block's pixels in the window some blocks before it.

  In the example of `_backward`, these are (0, 1) for the block's own window and
  (2, none) for the window one block before.

  Args:
    size: window side.
    stride: step between windows, and side of a block.
    up: number of blocks by which the window starts above the block.
    left: number of blocks by which the window starts left of the block.

  Returns:
    (stride, stride) int8: row * size + column in the window, or -2 if the pixel
    is outside of the window.
  """
  rows = np.arange(stride)[:, None] + up * stride
  columns = np.arange(stride) + left * stride
  inside = (rows < size) & (columns < size)
  return np.where(inside, rows * size + columns, -2).astype(np.int8)


_pool.defvjp(_forward, _backward)
