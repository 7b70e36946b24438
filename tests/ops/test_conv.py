"""Operations against values derived by hand.

`test_conv_parity.py` compares the convolutions with XLA's at random sizes.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mtnet_jax.models import batch_norm
from mtnet_jax.ops import conv as conv_lib
from mtnet_jax.ops import depthwise
from mtnet_jax.ops import pointwise
from mtnet_jax.ops import pooling
from mtnet_jax.ops import target
from mtnet_jax.ops.native import library


def test_depthwise_by_hand():
  # The kernel is 1 at the top left tap and 10 at the centre, so
  # out[i, j] = 10 x[i, j] + x[i - 1, j - 1], where x is 0 outside.
  x = jnp.asarray([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)
  kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(10.0).at[0, 0].set(1.0)
  out = depthwise.conv(x, kernel)
  np.testing.assert_array_equal(out[0, :, :, 0], [[10, 20], [30, 41]])


def test_dilated_conv_beyond_the_grid_is_its_centre_tap():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(1, 4, 4, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 2)), jnp.float32)
  np.testing.assert_allclose(
    conv_lib.conv(x, kernel, dilation=4),
    pointwise.conv(x, kernel[1:2, 1:2]),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('platform, convolutions', (('cpu', 0), ('cuda', 1)))
def test_dilated_conv_is_chosen_where_the_program_is_lowered(
  platform, convolutions
):
  traced = jax.jit(functools.partial(conv_lib.conv, dilation=2)).trace(
    jnp.zeros((1, 5, 5, 3)), jnp.zeros((3, 3, 3, 4))
  )
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert text.count('stablehlo.convolution') == convolutions


@pytest.mark.parametrize('platform', ('cpu', 'cuda'))
def test_a_barrier_separates_a_strided_slice_and_a_product(platform):
  """XLA's GPU compiler crashes if it fuses the two (JAX 0.10)."""

  def gradients(x, kernel, grad):
    conv = functools.partial(pointwise.conv, stride=2)
    return jax.vjp(conv, x, kernel)[1](grad)

  text = (
    jax.jit(gradients)
    .trace(
      jnp.zeros((2, 9, 9, 3)), jnp.zeros((1, 1, 3, 4)), jnp.zeros((2, 5, 5, 4))
    )
    .lower(lowering_platforms=(platform,))
    .as_text()
  )
  (sliced,) = re.findall(r'(%\w+) = stablehlo.slice [^\n]*tensor<2x5x5x3', text)
  (users,) = [line for line in text.splitlines() if f'{sliced} :' in line]
  assert 'stablehlo.optimization_barrier' in users


@pytest.mark.parametrize('platform', ('cpu', 'cuda'))
def test_depthwise_fuses_its_padding_on_accelerators(platform):
  """The kernel gradient is a sum per tap there, and on a CPU a loop."""

  def gradients(x, kernel, grad):
    return jax.vjp(depthwise.conv, x, kernel)[1](grad)

  x = jnp.zeros((4, 6, 6, 3), jnp.bfloat16)
  with target.portable():
    traced = jax.jit(gradients).trace(
      x, jnp.zeros((3, 3, 1, 3), jnp.bfloat16), x
    )
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  on_cpu = platform == 'cpu'
  assert ('stablehlo.optimization_barrier' in text) == on_cpu
  assert ('stablehlo.while' in text) == on_cpu


def test_two_sums_are_one_reduction_on_accelerators():
  rng = np.random.default_rng(0)
  one, other = rng.integers(-9, 9, (2, 3, 5, 7, 4)).astype(np.float32)
  expected = one.sum((0, 1, 2)), other.sum((0, 1, 2))
  for got in (
    batch_norm.pixel_sums(one, other),
    batch_norm.joint_sums(one, other),
  ):
    jax.tree.map(np.testing.assert_array_equal, got, expected)
  for platform, reductions in (('cpu', 2), ('cuda', 1)):
    with target.portable():
      traced = jax.jit(batch_norm.pixel_sums).trace(one, other)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count('stablehlo.reduce(') == reductions


def _kernel_gradient_program(channels, *, platform='cpu', stride=1):
  def kernel_gradient(x, kernel, grad):
    conv = functools.partial(conv_lib.conv, stride=stride)
    return jax.vjp(conv, x, kernel)[1](grad)[1]

  x = jnp.zeros((2, 6, 6, channels))
  return (
    jax.jit(kernel_gradient)
    .trace(x, jnp.zeros((3, 3, channels, channels)), x[:, ::stride, ::stride])
    .lower(lowering_platforms=(platform,))
    .as_text()
  )


@pytest.mark.parametrize(
  'platform, channels, convolutions',
  (('cpu', 15, 1), ('cpu', 16, 0), ('cuda', 16, 1)),
)
def test_the_kernel_gradient_of_few_channels_is_made_of_matrix_products(
  platform, channels, convolutions
):
  with target.portable():
    program = _kernel_gradient_program(channels, platform=platform)
  assert program.count('stablehlo.convolution') == convolutions


@pytest.mark.skipif(not library.loaded(), reason='no C++ loops here')
@pytest.mark.parametrize('stride', (1, 2))
@pytest.mark.parametrize('channels', (3, 127))
def test_the_kernel_gradient_of_few_channels_is_the_c_loop(channels, stride):
  program = _kernel_gradient_program(channels, stride=stride)
  assert 'stablehlo.convolution' not in program
  assert program.count('@mtnet_conv3x3_kernel_gradient(') == 1


@pytest.mark.parametrize(
  'choices', ({'stride': 2}, {'padding': 0}, {'padding': 2})
)
def test_dilation_with_stride_or_padding_is_refused(choices):
  with pytest.raises(ValueError, match='dilation 2'):
    conv_lib.conv(
      jnp.zeros((1, 4, 4, 1)),
      jnp.zeros((3, 3, 1, 1)),
      dilation=2,
      **choices,
    )


_SQUARE = np.arange(16.0).reshape(1, 4, 4, 1)


def test_max_pool_symmetric_at_an_even_size():
  # Windows start at -1 and 1, so they cover rows {0, 1} and {1, 2, 3}. The
  # maxima are in their last rows, 1 and 3.
  pooled = pooling.max_pool(_SQUARE, padding='symmetric')
  np.testing.assert_array_equal(pooled[0, :, :, 0], [[5, 7], [13, 15]])


def test_max_pool_same_at_an_even_size():
  # Keras adds one row, at the end. Windows start at 0 and 2, so they cover rows
  # {0, 1, 2} and {2, 3}. The maxima are in their last rows, 2 and 3.
  pooled = pooling.max_pool(_SQUARE, padding='same')
  np.testing.assert_array_equal(pooled[0, :, :, 0], [[10, 11], [14, 15]])


def test_max_pool_paddings_agree_at_odd_sizes():
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
  same, symmetric = (
    pooling.max_pool(x, padding=padding) for padding in ('same', 'symmetric')
  )
  assert same.shape == (2, 3, 4, 3)
  np.testing.assert_array_equal(same, symmetric)


@pytest.mark.parametrize('padding', ('same', 'symmetric'))
@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_max_pool_padding_never_wins(padding, dtype):
  pooled = pooling.max_pool(
    jnp.full((1, 4, 3, 2), -5.0, dtype), padding=padding
  )
  assert pooled.dtype == dtype
  np.testing.assert_array_equal(pooled, jnp.full((1, 2, 2, 2), -5.0, dtype))


def test_max_pool_gradient_goes_to_the_largest():
  # The maxima of the four symmetric windows are 5, 7, 13 and 15 (see above).
  grad = jax.grad(lambda x: pooling.max_pool(x).sum())(jnp.asarray(_SQUARE))
  expected = np.zeros(16)
  expected[[5, 7, 13, 15]] = 1
  np.testing.assert_array_equal(grad.ravel(), expected)


def test_max_pool_refuses_unknown_padding():
  with pytest.raises(ValueError, match='valid'):
    pooling.max_pool(_SQUARE, padding='valid')


def _resize_row(values, size):
  x = jnp.asarray(values, jnp.float32).reshape(1, 1, -1, 1)
  return conv_lib.resize_align_corners(x, (1, size))[0, 0, :, 0]


def test_resize_by_hand():
  # 2 -> 4: positions 0, 1/3, 2/3, 1.
  np.testing.assert_allclose(_resize_row([0, 3], 4), [0, 1, 2, 3], atol=1e-6)
  # 3 -> 5: positions 0, .5, 1, 1.5, 2.
  np.testing.assert_allclose(_resize_row([0, 2, 10], 5), [0, 1, 2, 6, 10])
  # 5 -> 3, down: positions 0, 2, 4; no average of neighbours.
  np.testing.assert_allclose(_resize_row([1, 9, 2, 9, 3], 3), [1, 2, 3])
  # A single pixel is repeated, and a single output is the first pixel.
  np.testing.assert_allclose(_resize_row([7], 3), [7, 7, 7])
  np.testing.assert_allclose(_resize_row([4, 5, 6], 1), [4])


@pytest.mark.parametrize(
  'in_hw, out_hw', (((4, 7), (16, 9)), ((9, 5), (3, 5)), ((6, 3), (5, 1)))
)
def test_resize_is_bilinear_interpolation(in_hw, out_hw):
  x = np.random.default_rng(0).normal(size=(2, *in_hw, 3)).astype(np.float32)
  rows, columns = np.meshgrid(
    np.linspace(0, in_hw[0] - 1, out_hw[0]),
    np.linspace(0, in_hw[1] - 1, out_hw[1]),
    indexing='ij',
  )
  resized = conv_lib.resize_align_corners(x, out_hw)
  assert resized.shape == (2, *out_hw, 3)
  for b in range(2):
    for c in range(3):
      np.testing.assert_allclose(
        resized[b, :, :, c],
        ndimage.map_coordinates(x[b, :, :, c], (rows, columns), order=1),
        rtol=1e-4,
        atol=1e-5,
      )


def test_resize_keeps_the_type_and_constants():
  x = jnp.full((1, 3, 3, 2), 0.5, jnp.bfloat16)
  resized = conv_lib.resize_align_corners(x, (12, 12))
  assert resized.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(resized, np.float32), 0.5, atol=4e-3)


def test_max_pool_s_gradient_goes_to_the_first_of_equals():
  x = np.zeros((1, 4, 4, 1), np.float32)
  x[0, 1, 3] = 1
  grad = jax.grad(
    lambda x: jnp.sum(
      pooling.max_pool(x, size=2, padding='same')
      * jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    )
  )(x)
  expected = np.zeros((4, 4))
  expected[0, 0], expected[1, 3], expected[2, 0], expected[2, 2] = 1, 2, 3, 4
  np.testing.assert_array_equal(grad[0, ..., 0], expected)
