"""Images (B, H, W, C) with a border, and the views of them that taps meet."""

from jax import lax
import jax.numpy as jnp


def pad(x, rows, columns, value=0):
  """Pads the rows and columns.

  Args:
    x: (B, H, W, C).
    rows, columns: (before, after, between) each, as `lax.pad` has them.
    value: what is put there.
  """
  return lax.pad(
    x, jnp.array(value, x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0))
  )


def shifted_views(padded, *, size, stride, dilation, out_hw):
  """The size * size views of a padded input that meet each tap, row by row."""
  height, width = out_hw
  for i in range(size):
    for j in range(size):
      top, left = i * dilation, j * dilation
      yield padded[
        :,
        top : top + (height - 1) * stride + 1 : stride,
        left : left + (width - 1) * stride + 1 : stride,
      ]
