"""Max-pooling with its gradient stated by hand.

XLA's CPU backend makes four passes over indices of the whole input out of the
gradient of a pooling. Here the output remembers, in one pass and a byte each,
which pixel of its window was the largest, and the gradient goes back there.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import common


def max_pool(x, *, size=3, stride=2, padding='symmetric'):
  """Max-pooling.

  Args:
    x: (B, H, W, C).
    size: window side; odd with symmetric padding.
    stride: step between windows.
    padding: 'symmetric' pads size // 2 on both sides, as PyTorch ports do;
      'same' pads as Keras does, less at the start where the size is even.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), C).
  """
  if padding == 'same':
    pads = lax.padtype_to_pads(
      x.shape[1:3], (size, size), (stride, stride), 'SAME'
    )
  elif padding == 'symmetric':
    pads = ((size // 2, size // 2),) * 2
  else:
    raise ValueError(
      f"pooling padding is 'same' or 'symmetric', not {padding!r}."
    )
  return _pool(x, size, stride, tuple(map(tuple, pads)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool(x, size, stride, pads):
  return _largest(x, size, stride, pads)[0]


def _out_size(size, low_high, window, stride):
  return (size + sum(low_high) - window) // stride + 1


def _largest(x, size, stride, pads):
  """The largest of every window, and which of its pixels that is.

  Where several are equal it is the first one, row by row, as in PyTorch and
  XLA.
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
  """Every pixel collects the gradients of the windows whose largest it was.

  An example in one dimension: windows of 3 pixels at a stride of 2 over padded
  pixels 0 to 6 are 0-2, 2-4 and 4-6. Cut into strides, (0, 1), (2, 3), (4, 5)
  and (6, -), the pixels of a stride lie in the window that begins there, as its
  taps 0 and 1, and in the one before (`reach` is 1), of which pixel 2 is tap 2
  and pixel 3 is none. So the gradient of (2, 3) is that of window 2-4 where
  `which` is (0, 1), plus that of window 0-2 where `which` is (2, no tap).

  All pixels of a stride are computed at once: a concatenation of one array per
  pixel would be a slow loop of XLA's.
  """
  which, shape = residuals
  # Strides of the padded input, as many as hold every pixel of it.
  down, across = (
    -(-(length + sum(low_high)) // stride)
    for length, low_high in zip(shape[1:3], pads, strict=True)
  )
  reach = -(-size // stride) - 1

  def with_windows_before(x, fill):
    height, width = x.shape[1:3]
    return common.pad(
      x, (reach, down - height, 0), (reach, across - width, 0), fill
    )

  which, wide = lax.optimization_barrier(
    (with_windows_before(which, -1), with_windows_before(common.wide(grad), 0))
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
  """Which tap a stride's pixels are of a window that begins before it.

  With a size of 3 and a stride of 2 the pixels of a row are taps (0, 1) of the
  window that begins with them, `left` 0, and (2, outside) of the one that
  begins a stride before, `left` 1.

  Args:
    size, stride: of the pooling.
    up, left: strides from the window's start down and across to the pixels.

  Returns:
    (stride, stride) int8: row * size + column in the window; -2 where a pixel
    lies outside it.
  """
  rows = np.arange(stride)[:, None] + up * stride
  columns = np.arange(stride) + left * stride
  inside = (rows < size) & (columns < size)
  return np.where(inside, rows * size + columns, -2).astype(np.int8)


_pool.defvjp(_forward, _backward)
