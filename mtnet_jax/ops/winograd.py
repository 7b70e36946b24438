"""3 x 3 convolutions with a quarter of the products: Winograd's F(4 x 4).

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
An output tile of 4 x 4 depends on 6 x 6 pixels d and the kernel k by

    y = A' [(G k G') * (B' d B)] A

with 36 products, where the sum over taps has 144. Over all tiles and channels
these are 36 matrix products. The matrices are those of the points 0, 1, -1,
1/2, -1/2 and infinity: small ones, so that rounding stays small.

The gradient by the input is the same convolution, of the output's gradient
with the kernel turned; that by the kernel is 36 matrix products likewise.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import common

_TILE = 4
_SEEN = _TILE + 2
_POINTS = (0, 1, -1, 0.5, -0.5)


def _values(degree):
  """Polynomials of so many coefficients at the points: (6, degree)."""
  rows = np.vander(np.array(_POINTS), degree, increasing=True)
  # At infinity only the highest coefficient counts.
  return np.vstack([rows, np.eye(degree)[-1:]])


# Products of polynomials are products of their values (Toom and Cook): the
# pixels' matrix undoes the values of the whole product.
_A, _G = _values(_TILE), _values(3)
_B = np.linalg.inv(_values(_SEEN))


def _mix(parts, matrix):
  """[sum_i matrix[i, j] * parts[i] for j], without the products by 0."""
  return [
    sum(
      part if weight == 1 else part * float(weight)
      for part, weight in zip(parts, column, strict=True)
      if weight
    )
    for column in matrix.T
  ]


def _tiles(size):
  return -(-size // _TILE)


def _see(x, pad):
  """B' d B of every tile of the output: (B, H, W, C) -> (6, 6, tiles, C)."""
  batch, height, width, channels = x.shape
  down, across = (_tiles(size + 2 * pad - 2) for size in (height, width))
  padded = common.pad(
    x,
    (pad, _TILE * down + 2 - height - pad, 0),
    (pad, _TILE * across + 2 - width - pad, 0),
  )

  def nth(values, offset, count, axis):
    stop = offset + _TILE * (count - 1) + 1
    return lax.slice_in_dim(values, offset, stop, _TILE, axis)

  rows = _mix([nth(padded, i, down, 1) for i in range(_SEEN)], _B)
  # A row of 6 x 6 is made of a column of them: made once, not six times.
  rows = lax.optimization_barrier(jnp.stack(rows))
  both = _mix([nth(rows, j, across, 3) for j in range(_SEEN)], _B)
  return jnp.stack(both, 1).reshape(
    _SEEN, _SEEN, batch * down * across, channels
  )


def _cut(products, shape):
  """A' m A of every tile, put together: (6, 6, tiles, F) -> shape."""
  batch, height, width, features = shape
  rows = lax.optimization_barrier(jnp.stack(_mix(products, _A)))
  tiles = jnp.stack(_mix(rows.swapaxes(0, 1), _A), 1)
  down, across = _tiles(height), _tiles(width)
  tiles = tiles.reshape(_TILE, _TILE, batch, down, across, features)
  whole = tiles.transpose(2, 3, 0, 4, 1, 5).reshape(
    batch, down * _TILE, across * _TILE, features
  )
  return whole[:, :height, :width]


def _spread(grad):
  """A g A', which takes `_cut` back: (B, H, W, F) -> (6, 6, tiles, F)."""
  batch, height, width, features = grad.shape
  down, across = _tiles(height), _tiles(width)
  grad = common.pad(
    grad, (0, _TILE * down - height, 0), (0, _TILE * across - width, 0)
  )
  rows = _mix([grad[:, i::_TILE] for i in range(_TILE)], _A.T)
  rows = lax.optimization_barrier(jnp.stack(rows))
  both = _mix([rows[:, :, :, j::_TILE] for j in range(_TILE)], _A.T)
  return jnp.stack(both, 1).reshape(
    _SEEN, _SEEN, batch * down * across, features
  )


def _convolve(x, kernel, pad):
  batch, height, width, _ = x.shape
  spread = jnp.asarray(_G, kernel.dtype)
  taps = jnp.einsum('ui,vj,ijcf->uvcf', spread, spread, kernel)
  products = jnp.einsum('uvnc,uvcf->uvnf', _see(x, pad), taps)
  more = 2 * pad - 2
  return _cut(products, (batch, height + more, width + more, kernel.shape[-1]))


def _kernel_gradient(x, grad, pad):
  taps = jnp.einsum('uvnc,uvnf->uvcf', _see(x, pad), _spread(grad))
  gather = jnp.asarray(_G, taps.dtype)
  return jnp.einsum('ui,vj,uvcf->ijcf', gather, gather, taps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x, kernel, pad=1):
  """3 x 3 convolution.

  Args:
    x: (B, H, W, C) float32, or wider.
    kernel: (3, 3, C, F) of x's type.
    pad: pixels of zeros on each side, 0 to 2.

  Returns:
    (B, H + 2 pad - 2, W + 2 pad - 2, F).
  """
  return _convolve(x, kernel, pad)


def _forward(x, kernel, pad):
  return conv(x, kernel, pad), (x, kernel)


def _backward(pad, residuals, grad):
  x, kernel = residuals
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  return _convolve(grad, turned, 2 - pad), _kernel_gradient(x, grad, pad)


conv.defvjp(_forward, _backward)
