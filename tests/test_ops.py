"""Every fast form against XLA's convolution, forwards and backwards."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mtnet_jax import ops

# Every shape is compiled, so there are few examples, always the same ones.
_few = functools.partial(
  hypothesis.settings,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)


def _xla(x, kernel, *, stride=1, dilation=1, pad, groups=1):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
    precision='highest',
  )


def _assert_same(ours, reference, x_shape, kernel_shape, *, dtype='float32'):
  """Output and both gradients of two forms agree on random values.

  The reference computes in float32 what `ours` computes in `dtype` from the
  same (rounded) values.
  """
  rng = np.random.default_rng(0)
  x, kernel = (
    jnp.asarray(rng.normal(size=shape), dtype)
    for shape in (x_shape, kernel_shape)
  )

  @functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 0}
  )
  def both(x, kernel):
    out, pull = jax.vjp(ours, x, kernel)
    grad = jax.random.normal(jax.random.key(1), out.shape, dtype)
    x, kernel, grad32 = (a.astype('float32') for a in (x, kernel, grad))
    expected, expected_pull = jax.vjp(reference, x, kernel)
    return (out, *pull(grad)), (expected, *expected_pull(grad32))

  got, expected = both(x, kernel)
  # bfloat16 keeps 8 bits; each result is a sum of such roundings.
  tolerance = 3e-5 if dtype == 'float32' else 2e-2
  names = ('out', 'x', 'kernel')
  for name, ours, reference in zip(names, got, expected, strict=True):
    assert ours.dtype == dtype
    assert ours.shape == reference.shape, name
    scale = max(1.0, float(jnp.max(jnp.abs(reference), initial=0.0)))
    np.testing.assert_allclose(
      np.asarray(ours, np.float32) / scale,
      reference / scale,
      rtol=0,
      atol=tolerance,
      err_msg=name,
    )


def _assert_depthwise(x_shape, *, size=3, stride, dilation, dtype='float32'):
  channels = x_shape[-1]
  _assert_same(
    functools.partial(ops.depthwise_conv, stride=stride, dilation=dilation),
    functools.partial(
      _xla,
      stride=stride,
      dilation=dilation,
      pad=dilation * (size // 2),
      groups=channels,
    ),
    x_shape,
    (size, size, 1, channels),
    dtype=dtype,
  )


@_few(max_examples=12)
@hypothesis.given(
  batch=st.integers(1, 3),
  height=st.integers(1, 17),
  width=st.integers(1, 17),
  channels=st.integers(1, 13),
  size=st.sampled_from((3, 5)),
  stride=st.sampled_from((1, 2, 3)),
  dilation=st.sampled_from((1, 2)),
)
def test_depthwise_is_the_grouped_convolution(
  batch, height, width, channels, size, stride, dilation
):
  _assert_depthwise(
    (batch, height, width, channels),
    size=size,
    stride=stride,
    dilation=dilation,
  )


@pytest.mark.parametrize('stride', (1, 2))
@pytest.mark.parametrize('dilation', (1, 2))
@pytest.mark.parametrize('hw', ((1, 2), (2, 17), (16, 7)))
def test_depthwise_at_small_odd_and_even_sizes(hw, stride, dilation):
  _assert_depthwise((2, *hw, 11), stride=stride, dilation=dilation)


@pytest.mark.parametrize('stride, dilation', ((1, 1), (2, 1), (1, 2)))
def test_depthwise_in_bfloat16_is_near_float32(stride, dilation):
  _assert_depthwise(
    (2, 9, 6, 5), stride=stride, dilation=dilation, dtype='bfloat16'
  )


def test_depthwise_kernel_gradient_in_bfloat16_sums_in_float32():
  # 4 * 32 * 32 = 4096 ones at the centre tap. A sum kept in bfloat16 stops at
  # 256, where adding 1 no longer changes it.
  x = jnp.ones((4, 32, 32, 1), jnp.bfloat16)
  kernel = jnp.ones((3, 3, 1, 1), jnp.bfloat16)
  grad = jax.grad(
    lambda kernel: ops.depthwise_conv(x, kernel).astype(jnp.float32).sum()
  )(kernel)
  assert grad[1, 1, 0, 0] == 4096


def test_depthwise_by_hand():
  # Kernel with 1 at the top left tap and 10 at the centre:
  # out[i, j] = 10 x[i, j] + x[i - 1, j - 1], zero outside.
  x = jnp.asarray([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)
  kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(10.0).at[0, 0].set(1.0)
  out = ops.depthwise_conv(x, kernel)
  np.testing.assert_array_equal(out[0, :, :, 0], [[10, 20], [30, 41]])


def test_depthwise_has_a_gradient_under_vmap():
  # Batch statistics are synchronised over a mapped axis, so steps are mapped.
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 1, 5, 4, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 3)), jnp.float32)

  def loss(kernel, x):
    return (ops.depthwise_conv(x, kernel) ** 2).sum()

  grads = jax.vmap(jax.grad(loss), (None, 0))(kernel, x)
  for i in range(2):
    np.testing.assert_allclose(
      grads[i], jax.grad(loss)(kernel, x[i]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize('hw, stride', (((5, 4), 1), ((5, 4), 2), ((1, 7), 2)))
def test_pointwise_is_the_1x1_convolution(hw, stride):
  for ours in (ops.pointwise_conv, ops.conv):
    _assert_same(
      functools.partial(ours, stride=stride),
      functools.partial(_xla, stride=stride, pad=0),
      (2, *hw, 7),
      (1, 1, 7, 5),
    )


@pytest.mark.parametrize(
  'stride, padding', ((1, None), (2, None), (2, 0), (1, 0), (1, 2))
)
def test_plain_conv(stride, padding):
  _assert_same(
    functools.partial(ops.conv, stride=stride, padding=padding),
    functools.partial(
      _xla, stride=stride, pad=1 if padding is None else padding
    ),
    (2, 8, 5, 3),
    (3, 3, 3, 4),
  )


@_few(max_examples=8)
@hypothesis.given(
  height=st.integers(1, 9),
  width=st.integers(1, 9),
  dilation=st.integers(2, 12),
  size=st.sampled_from((3, 5)),
)
def test_dilated_conv_at_any_rate(height, width, dilation, size):
  _assert_same(
    functools.partial(ops.conv, dilation=dilation),
    functools.partial(_xla, dilation=dilation, pad=dilation * (size // 2)),
    (2, height, width, 3),
    (size, size, 3, 4),
  )


@pytest.mark.parametrize('dilation', (6, 13, 14, 18))
def test_dilated_conv_on_the_paper_s_grid(dilation):
  # 13 is the last rate at which a side tap still touches 14 x 14.
  _assert_same(
    functools.partial(ops.conv, dilation=dilation),
    functools.partial(_xla, dilation=dilation, pad=dilation),
    (1, 14, 14, 3),
    (3, 3, 3, 2),
  )


def test_dilated_conv_beyond_the_grid_is_its_centre_tap():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(1, 4, 4, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 2)), jnp.float32)
  np.testing.assert_allclose(
    ops.conv(x, kernel, dilation=4),
    ops.pointwise_conv(x, kernel[1:2, 1:2]),
    rtol=1e-5,
    atol=1e-6,
  )


def test_dilated_conv_in_bfloat16_is_near_float32():
  _assert_same(
    functools.partial(ops.conv, dilation=3),
    functools.partial(_xla, dilation=3, pad=3),
    (2, 7, 6, 3),
    (3, 3, 3, 4),
    dtype='bfloat16',
  )


@pytest.mark.parametrize('platform, convolutions', (('cpu', 0), ('cuda', 1)))
def test_dilated_conv_is_chosen_where_the_program_is_lowered(
  platform, convolutions
):
  traced = jax.jit(functools.partial(ops.conv, dilation=2)).trace(
    jnp.zeros((1, 5, 5, 3)), jnp.zeros((3, 3, 3, 4))
  )
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert text.count('stablehlo.convolution') == convolutions


@pytest.mark.parametrize(
  'choices', ({'stride': 2}, {'padding': 0}, {'padding': 2})
)
def test_dilation_refuses_what_it_does_not_compute(choices):
  with pytest.raises(ValueError, match='dilation 2'):
    ops.conv(
      jnp.zeros((1, 4, 4, 1)),
      jnp.zeros((3, 3, 1, 1)),
      dilation=2,
      **choices,
    )


_SQUARE = np.arange(16.0).reshape(1, 4, 4, 1)


def test_max_pool_symmetric_at_an_even_size():
  # Windows start at -1 and 1: rows {0, 1} and {1, 2, 3}, whose last are 1, 3.
  pooled = ops.max_pool(_SQUARE, padding='symmetric')
  np.testing.assert_array_equal(pooled[0, :, :, 0], [[5, 7], [13, 15]])


def test_max_pool_same_at_an_even_size():
  # Keras pads 1 in all, at the end: windows start at 0 and 2, so rows
  # {0, 1, 2} and {2, 3}, whose last are 2, 3.
  pooled = ops.max_pool(_SQUARE, padding='same')
  np.testing.assert_array_equal(pooled[0, :, :, 0], [[10, 11], [14, 15]])


def test_max_pool_paddings_agree_at_odd_sizes():
  x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
  same, symmetric = (
    ops.max_pool(x, padding=padding) for padding in ('same', 'symmetric')
  )
  assert same.shape == (2, 3, 4, 3)
  np.testing.assert_array_equal(same, symmetric)


@pytest.mark.parametrize('padding', ('same', 'symmetric'))
@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_max_pool_padding_never_wins(padding, dtype):
  pooled = ops.max_pool(jnp.full((1, 4, 3, 2), -5.0, dtype), padding=padding)
  assert pooled.dtype == dtype
  np.testing.assert_array_equal(pooled, jnp.full((1, 2, 2, 2), -5.0, dtype))


def test_max_pool_gradient_goes_to_the_largest():
  # The largest of the four symmetric windows are 5, 7, 13, 15 (see above).
  grad = jax.grad(lambda x: ops.max_pool(x).sum())(jnp.asarray(_SQUARE))
  expected = np.zeros(16)
  expected[[5, 7, 13, 15]] = 1
  np.testing.assert_array_equal(grad.ravel(), expected)


def test_max_pool_refuses_unknown_padding():
  with pytest.raises(ValueError, match='valid'):
    ops.max_pool(_SQUARE, padding='valid')


def _resize_row(values, size):
  x = jnp.asarray(values, jnp.float32).reshape(1, 1, -1, 1)
  return ops.resize_align_corners(x, (1, size))[0, 0, :, 0]


def test_resize_by_hand():
  # 2 -> 4: positions 0, 1/3, 2/3, 1.
  np.testing.assert_allclose(_resize_row([0, 3], 4), [0, 1, 2, 3], atol=1e-6)
  # 3 -> 5: positions 0, .5, 1, 1.5, 2.
  np.testing.assert_allclose(_resize_row([0, 2, 10], 5), [0, 1, 2, 6, 10])
  # 5 -> 3, down: positions 0, 2, 4; no average of neighbours.
  np.testing.assert_allclose(_resize_row([1, 9, 2, 9, 3], 3), [1, 2, 3])
  # One pixel has no ends: it is everywhere, and to one pixel the first goes.
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
  resized = ops.resize_align_corners(x, out_hw)
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
  resized = ops.resize_align_corners(x, (12, 12))
  assert resized.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(resized, np.float32), 0.5, atol=4e-3)
