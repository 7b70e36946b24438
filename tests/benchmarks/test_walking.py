"""Depthwise kernels that walk down the rows are the grouped convolution."""

import functools

import conv_parity
import jax
import pytest

from benchmarks.gpu import walking
from mtnet_jax.ops import tiles


def _form(tile):
  @jax.custom_vjp
  def form(x, kernel):
    return walking.conv(x, kernel, tile=tile, interpret=True)

  def backward(residuals, grad):
    return walking.gradients(*residuals, grad, tile=tile, interpret=True)

  form.defvjp(lambda *arguments: (form(*arguments), arguments), backward)
  return form


# Steps and columns that end beyond the image, at it, and more than one block.
@pytest.mark.slow
@pytest.mark.parametrize(
  'shape, tile, dtype',
  (
    ((2, 14, 14, 8), tiles.Tile(1, 16, channels=8, steps=14), 'float32'),
    ((1, 9, 19, 12), tiles.Tile(1, 8, channels=8, steps=4), 'bfloat16'),
    ((1, 1, 1, 4), tiles.Tile(1, 8, channels=8, steps=1), 'bfloat16'),
  ),
)
def test_they_are_the_grouped_convolution(shape, tile, dtype):
  conv_parity.assert_same(
    _form(tile),
    functools.partial(conv_parity.xla_conv, pad=1, groups=shape[-1]),
    shape,
    (3, 3, 1, shape[-1]),
    dtype=dtype,
    optimized=True,
  )
