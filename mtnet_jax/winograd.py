"""3 x 3 convolutions with fewer products: Winograd's F(4 x 4) and F(2 x 2).

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
An output tile of 4 x 4 depends on 6 x 6 pixels d and the kernel k by

    y = A' [(G k G') * (B' d B)] A

with 36 products, where the sum over taps has 144. Over all tiles and channels
these are 36 matrix products. The matrices are those of the points 0, 1, -1,
1/2, -1/2 and infinity: small ones, so that rounding stays small. A tile of
2 x 2 has 16 products for 36, of the points 0, 1, -1 and infinity, and rounds
hardly more than the sum over taps.

The gradient by the input is the same convolution, of the output's gradient
with the kernel turned; that by the kernel is as many matrix products.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_POINTS = (0, 1, -1, 0.5, -0.5)


def _values(points, degree):
  """Polynomials of so many coefficients at the points: (points + 1, degree)."""
  rows = np.vander(np.array(points), degree, increasing=True)
  # At infinity only the highest coefficient counts.
  return np.vstack([rows, np.eye(degree)[-1:]])


@functools.cache
def _matrices(tile):
  """A, B and G of tiles of tile x tile.

  Products of polynomials are products of their values (Toom and Cook): the
  pixels' matrix undoes the values of the whole product.
  """
  points = _POINTS[: tile + 1]
  seen = np.linalg.inv(_values(points, tile + 2))
  return _values(points, tile), seen, _values(points, 3)


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


def _tiles(size, tile):
  return -(-size // tile)


def _see(x, pad, tile):
  """B' d B of every tile of the output: (B, H, W, C) -> (s, s, tiles, C).

  s is `tile` + 2.
  """
  _, undo, _ = _matrices(tile)
  batch, height, width, channels = x.shape
  down, across = (_tiles(size + 2 * pad - 2, tile) for size in (height, width))
  padded = lax.pad(
    x,
    jnp.zeros((), x.dtype),
    (
      (0, 0, 0),
      (pad, tile * down + 2 - height - pad, 0),
      (pad, tile * across + 2 - width - pad, 0),
      (0, 0, 0),
    ),
  )

  def nth(values, offset, count, axis):
    stop = offset + tile * (count - 1) + 1
    return lax.slice_in_dim(values, offset, stop, tile, axis)

  rows = _mix([nth(padded, i, down, 1) for i in range(tile + 2)], undo)
  # A row of s x s is made of a column of them: made once, not s times.
  rows = lax.optimization_barrier(jnp.stack(rows))
  both = _mix([nth(rows, j, across, 3) for j in range(tile + 2)], undo)
  return jnp.stack(both, 1).reshape(
    tile + 2, tile + 2, batch * down * across, channels
  )


def _cut(products, shape, tile):
  """A' m A of every tile, put together: (s, s, tiles, F) -> shape."""
  collect, _, _ = _matrices(tile)
  batch, height, width, features = shape
  rows = lax.optimization_barrier(jnp.stack(_mix(products, collect)))
  tiles = jnp.stack(_mix(rows.swapaxes(0, 1), collect), 1)
  down, across = _tiles(height, tile), _tiles(width, tile)
  tiles = tiles.reshape(tile, tile, batch, down, across, features)
  whole = tiles.transpose(2, 3, 0, 4, 1, 5).reshape(
    batch, down * tile, across * tile, features
  )
  return whole[:, :height, :width]


def _spread(grad, tile):
  """A g A', which takes `_cut` back: (B, H, W, F) -> (s, s, tiles, F)."""
  collect, _, _ = _matrices(tile)
  batch, height, width, features = grad.shape
  down, across = _tiles(height, tile), _tiles(width, tile)
  grad = lax.pad(
    grad,
    jnp.zeros((), grad.dtype),
    (
      (0, 0, 0),
      (0, tile * down - height, 0),
      (0, tile * across - width, 0),
      (0, 0, 0),
    ),
  )
  rows = _mix([grad[:, i::tile] for i in range(tile)], collect.T)
  rows = lax.optimization_barrier(jnp.stack(rows))
  both = _mix([rows[:, :, :, j::tile] for j in range(tile)], collect.T)
  return jnp.stack(both, 1).reshape(
    tile + 2, tile + 2, batch * down * across, features
  )


def _convolve(x, kernel, pad, tile):
  batch, height, width, _ = x.shape
  spread = jnp.asarray(_matrices(tile)[2], kernel.dtype)
  taps = jnp.einsum('ui,vj,ijcf->uvcf', spread, spread, kernel)
  products = jnp.einsum('uvnc,uvcf->uvnf', _see(x, pad, tile), taps)
  more = 2 * pad - 2
  shape = (batch, height + more, width + more, kernel.shape[-1])
  return _cut(products, shape, tile)


def _kernel_gradient(x, grad, pad, tile):
  taps = jnp.einsum('uvnc,uvnf->uvcf', _see(x, pad, tile), _spread(grad, tile))
  gather = jnp.asarray(_matrices(tile)[2], taps.dtype)
  return jnp.einsum('ui,vj,uvcf->ijcf', gather, gather, taps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x, kernel, pad=1, tile=4):
  """3 x 3 convolution.

  Args:
    x: (B, H, W, C) float32, or wider.
    kernel: (3, 3, C, F) of x's type.
    pad: pixels of zeros on each side, 0 to 2.
    tile: side of the output tiles, 2 or 4.

  Returns:
    (B, H + 2 pad - 2, W + 2 pad - 2, F).
  """
  return _convolve(x, kernel, pad, tile)


def _forward(x, kernel, pad, tile):
  return conv(x, kernel, pad, tile), (x, kernel)


def _backward(pad, tile, residuals, grad):
  x, kernel = residuals
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  return (
    _convolve(grad, turned, 2 - pad, tile),
    _kernel_gradient(x, grad, pad, tile),
  )


conv.defvjp(_forward, _backward)
