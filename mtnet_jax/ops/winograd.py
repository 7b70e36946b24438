"""3 x 3 convolutions with a quarter of the products: Winograd's F(4x4, 3x3).

See Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
2016. An output tile y of 4 x 4 pixels depends on an input tile d of 6 x 6
pixels and on the kernel k by

    y = A' [(G k G') * (B' d B)] A

where ' is the transpose and * the elementwise product. This takes 36 products,
and the sum over taps 144. Over all tiles and channels, they are 36 matrix
products. The matrices A, G and B belong to the points 0, 1, -1, 1/2, -1/2 and
infinity, which are small to keep rounding errors small.

The input gradient is the same convolution, of the output gradient with the
rotated kernel. The kernel gradient is another 36 matrix products.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import common

# Sides of an output tile and of an input tile.
_TILE = 4
_INPUT_TILE = _TILE + 2
_POINTS = (0, 1, -1, 0.5, -0.5)


def _values(num_coefficients):
  """Matrix (6, num_coefficients) that evaluates a polynomial at the points."""
  rows = np.vander(np.array(_POINTS), num_coefficients, increasing=True)
  # At infinity, the value is the highest coefficient.
  return np.vstack([rows, np.eye(num_coefficients)[-1:]])


# The Toom-Cook algorithm multiplies two polynomials by multiplying their values
# at the points, and the inverse of the matrix for six coefficients interpolates
# the product. Winograd's convolution is the transpose of this algorithm.
_A, _G = _values(_TILE), _values(3)
_B = np.linalg.inv(_values(_INPUT_TILE))


def _combine(parts, matrix):
  """Returns [sum_i matrix[i, j] * parts[i] for each j], without terms of 0."""
  return [
    sum(
      part if weight == 1 else part * float(weight)
      for part, weight in zip(parts, column, strict=True)
      if weight
    )
    for column in matrix.T
  ]


def _num_tiles(size):
  return -(-size // _TILE)


def _transform_input(x, pad):
  """Computes B' d B of every tile: (B, H, W, C) -> (6, 6, tiles, C)."""
  batch, height, width, channels = x.shape
  down, across = (_num_tiles(size + 2 * pad - 2) for size in (height, width))
  padded = common.pad(
    x,
    (pad, _TILE * down + 2 - height - pad, 0),
    (pad, _TILE * across + 2 - width - pad, 0),
  )

  def nth_of_each_tile(values, offset, count, axis):
    stop = offset + _TILE * (count - 1) + 1
    return lax.slice_in_dim(values, offset, stop, _TILE, axis)

  rows = _combine(
    [nth_of_each_tile(padded, i, down, 1) for i in range(_INPUT_TILE)], _B
  )
  # Without the barrier, XLA would compute the rows again for each column.
  rows = lax.optimization_barrier(jnp.stack(rows))
  both = _combine(
    [nth_of_each_tile(rows, j, across, 3) for j in range(_INPUT_TILE)], _B
  )
  return jnp.stack(both, 1).reshape(
    _INPUT_TILE, _INPUT_TILE, batch * down * across, channels
  )


def _transform_output(products, shape):
  """Computes A' m A of every tile: (6, 6, tiles, F) -> shape (B, H, W, F)."""
  batch, height, width, features = shape
  rows = lax.optimization_barrier(jnp.stack(_combine(products, _A)))
  tiles = jnp.stack(_combine(rows.swapaxes(0, 1), _A), 1)
  down, across = _num_tiles(height), _num_tiles(width)
  tiles = tiles.reshape(_TILE, _TILE, batch, down, across, features)
  whole = tiles.transpose(2, 3, 0, 4, 1, 5).reshape(
    batch, down * _TILE, across * _TILE, features
  )
  return whole[:, :height, :width]


def _transform_gradient(grad):
  """Computes A g A', the transpose of `_transform_output`.

  Maps (B, H, W, F) to (6, 6, tiles, F).
  """
  batch, height, width, features = grad.shape
  down, across = _num_tiles(height), _num_tiles(width)
  grad = common.pad(
    grad, (0, _TILE * down - height, 0), (0, _TILE * across - width, 0)
  )
  rows = _combine([grad[:, i::_TILE] for i in range(_TILE)], _A.T)
  rows = lax.optimization_barrier(jnp.stack(rows))
  both = _combine([rows[:, :, :, j::_TILE] for j in range(_TILE)], _A.T)
  return jnp.stack(both, 1).reshape(
    _INPUT_TILE, _INPUT_TILE, batch * down * across, features
  )


def _convolve(x, kernel, pad):
  batch, height, width, _ = x.shape
  matrix = jnp.asarray(_G, kernel.dtype)
  taps = jnp.einsum('ui,vj,ijcf->uvcf', matrix, matrix, kernel)
  products = jnp.einsum('uvnc,uvcf->uvnf', _transform_input(x, pad), taps)
  growth = 2 * pad - 2
  return _transform_output(
    products, (batch, height + growth, width + growth, kernel.shape[-1])
  )


def _kernel_gradient(x, grad, pad):
  taps = jnp.einsum(
    'uvnc,uvnf->uvcf', _transform_input(x, pad), _transform_gradient(grad)
  )
  matrix = jnp.asarray(_G, taps.dtype)
  return jnp.einsum('ui,vj,uvcf->ijcf', matrix, matrix, taps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, pad: int = 1) -> jax.Array:
  """Computes a 3 x 3 convolution.

  Args:
    x: (B, H, W, C) float32 or wider.
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
  rotated = kernel[::-1, ::-1].swapaxes(2, 3)
  return _convolve(grad, rotated, 2 - pad), _kernel_gradient(x, grad, pad)


conv.defvjp(_forward, _backward)
