"""The depthwise GPU kernels compute the grouped convolution.

JAX interprets them here, without a GPU. `test_target.py` checks what is lowered
for a GPU.
"""

import functools
import sys

import conv_parity
import jax
import jax.numpy as jnp
import pytest

from mtnet_jax.ops import depthwise_triton
from mtnet_jax.ops import tiles

_Tile = tiles.Tile


def _form(*, stride, dilation, relu=False, chosen=(None, None)):
  """Returns the function (x, kernel) -> y of the GPU kernels.

  Args:
    stride: step between output pixels.
    dilation: step between taps.
    relu: whether to convolve relu(x).
    chosen: tiles of the forward and of the backward pass.
  """
  options = {
    'stride': stride,
    'dilation': dilation,
    'relu': relu,
    'interpret': True,
  }

  @jax.custom_vjp
  def form(x, kernel):
    return depthwise_triton.conv(x, kernel, tile=chosen[0], **options)

  def forward(x, kernel):
    return form(x, kernel), (x, kernel)

  def backward(residuals, grad):
    return depthwise_triton.gradients(
      *residuals, grad, tile=chosen[1], **options
    )

  form.defvjp(forward, backward)
  return form


def _reference(x, kernel, *, stride, dilation, relu=False):
  return conv_parity.xla_conv(
    jax.nn.relu(x) if relu else x,
    kernel,
    stride=stride,
    dilation=dilation,
    pad=dilation,
    groups=x.shape[-1],
  )


def _check(shape, *, dtype='float32', chosen=(None, None), **steps):
  conv_parity.assert_same(
    _form(chosen=chosen, **steps),
    functools.partial(_reference, **steps),
    shape,
    (3, 3, 1, shape[-1]),
    dtype=dtype,
    optimized=True,
  )


# Batches, odd and even sides, incomplete blocks of channels, several blocks.
@pytest.mark.parametrize(
  'shape, steps',
  (
    ((2, 14, 14, 24), {'stride': 1, 'dilation': 1, 'relu': True}),
    ((1, 9, 17, 72), {'stride': 1, 'dilation': 2}),
    ((1, 15, 12, 8), {'stride': 2, 'dilation': 1, 'relu': True}),
  ),
)
def test_they_are_the_grouped_convolution(shape, steps):
  _check(shape, **steps)


def test_sums_are_rounded_once():
  _check((1, 7, 5, 16), dtype='bfloat16', stride=1, dilation=1, relu=True)


@pytest.mark.slow
@pytest.mark.parametrize(
  'shape, stride, dilation, relu, dtype',
  (
    ((1, 1, 2, 8), 1, 1, True, 'float32'),
    ((2, 28, 28, 8), 1, 1, False, 'bfloat16'),
    ((1, 30, 33, 8), 2, 1, False, 'float32'),
    ((1, 14, 14, 130), 1, 2, True, 'bfloat16'),
    ((1, 5, 6, 8), 2, 2, True, 'bfloat16'),
    ((1, 4, 4, 8), 1, 5, False, 'bfloat16'),
  ),
)
def test_they_are_the_grouped_convolution_at_length(
  shape, stride, dilation, relu, dtype
):
  _check(shape, stride=stride, dilation=dilation, relu=relu, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
  'chosen',
  (
    (_Tile(1, 16, steps=3), _Tile(2, 8, steps=2)),
    (_Tile(8, 8, channels=16), _Tile(4, 4, channels=16, steps=5)),
  ),
)
def test_every_tile_computes_the_same(chosen):
  _check((1, 13, 19, 40), stride=1, dilation=1, chosen=chosen, dtype='bfloat16')
  _check((1, 13, 19, 40), stride=2, dilation=1, chosen=chosen, dtype='bfloat16')


def test_nan_and_infinity_propagate():
  form = _form(stride=1, dilation=1, relu=True)
  x = jnp.ones((1, 5, 5, 8)).at[0, 2, 2, 0].set(jnp.nan)
  x = x.at[0, 0, 0, 1].set(jnp.inf).at[0, 0, 0, 2].set(-jnp.inf)
  kernel = jnp.ones((3, 3, 1, 8))
  y = form(x, kernel)
  assert jnp.isnan(y[0, 1:4, 1:4, 0]).all() and jnp.isfinite(y[0, 0]).sum() > 9
  assert jnp.isposinf(y[0, :2, :2, 1]).all()
  assert y[0, 0, 0, 2] == 3
  # A maximum would keep the NaN when interpreted, but not on a GPU, so the
  # program must not contain one.
  program = str(jax.make_jaxpr(jax.grad(lambda x: form(x, kernel).sum()))(x))
  assert ' max ' not in program and ' le ' in program


def test_tiles_are_powers_of_two():
  sizes = (1, 2, 4, 7, 8, 14, 28, 55, 56, 109, 112)
  for height in sizes:
    for width in sizes:
      for tile in (
        tiles.forward_tile((height, width)),
        tiles.backward_tile((height, width)),
      ):
        for size in (tile.rows, tile.columns, tile.channels, tile.warps):
          assert size & (size - 1) == 0 < size
        assert tile.steps >= 1


def test_other_kernels_and_types_are_not_supported():
  x = jax.ShapeDtypeStruct((1, 4, 4, 8), 'float32')
  kernel = jax.ShapeDtypeStruct((3, 3, 1, 8), 'float32')
  assert depthwise_triton.supports(x, kernel)
  assert not depthwise_triton.supports(
    x, jax.ShapeDtypeStruct((5, 5, 1, 8), 'float32')
  )
  assert not depthwise_triton.supports(
    jax.ShapeDtypeStruct((1, 4, 4, 8), 'float64'), kernel
  )


def test_nothing_is_supported_without_the_backend(monkeypatch):
  x = jax.ShapeDtypeStruct((1, 4, 4, 8), 'float32')
  kernel = jax.ShapeDtypeStruct((3, 3, 1, 8), 'float32')
  monkeypatch.setitem(sys.modules, 'jax.experimental.pallas.triton', None)
  depthwise_triton._has_backend.cache_clear()
  try:
    assert not depthwise_triton.supports(x, kernel)
  finally:
    depthwise_triton._has_backend.cache_clear()
