"""Every form of a convolution agrees with XLA's, and so do its gradients.

Each property is tested twice: on a few random sizes by default, and on many,
with the compiler's optimisations, in the long tests. The slow tests compare
layers of the paper's sizes, with optimisations.
"""

import functools

import conv_parity
import fast_compile
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops import conv
from mtnet_jax.ops import depthwise
from mtnet_jax.ops import pointwise

# Derandomised: the examples are the same in every run.
_settings = functools.partial(
  hypothesis.settings,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)

_ANY = {
  # Depthwise kernel gradients process two images at a time, from three on.
  'batch': st.integers(1, 5),
  # Small grids consist of border only.
  'height': st.one_of(st.integers(1, 9), st.integers(10, 65)),
  'width': st.one_of(st.integers(1, 9), st.integers(10, 65)),
  'channels': st.integers(1, 19),
  'dtype': st.sampled_from(('float32', 'bfloat16')),
}
_ANY_DENSE = {**_ANY, 'features': st.integers(1, 19)}


def _check_depthwise(
  *,
  batch,
  height,
  width,
  channels,
  size,
  stride,
  dilation,
  elsewhere=False,
  **kwargs,
):
  """Checks the form of this machine or, if `elsewhere`, of accelerators."""
  form = functools.partial(depthwise.conv, stride=stride, dilation=dilation)
  if elsewhere:
    form = depthwise.forms(stride, dilation).other
  conv_parity.assert_same(
    form,
    functools.partial(
      conv_parity.xla_conv,
      stride=stride,
      dilation=dilation,
      pad=dilation * (size // 2),
      groups=channels,
    ),
    (batch, height, width, channels),
    (size, size, 1, channels),
    **kwargs,
  )


_DEPTHWISE = hypothesis.given(
  **_ANY,
  size=st.sampled_from((3, 5)),
  stride=st.integers(1, 3),
  dilation=st.integers(1, 4),
)


@_settings(max_examples=3)
@_DEPTHWISE
def test_depthwise_is_the_grouped_convolution(**case):
  _check_depthwise(**case)


@pytest.mark.long
@_settings(max_examples=30)
@_DEPTHWISE
def test_depthwise_is_the_grouped_convolution_at_length(**case):
  _check_depthwise(**case, optimized=True)


@_settings(max_examples=2)
@_DEPTHWISE
def test_depthwise_of_accelerators(**case):
  _check_depthwise(**case, elsewhere=True)


@pytest.mark.long
@_settings(max_examples=20)
@_DEPTHWISE
def test_depthwise_of_accelerators_at_length(**case):
  _check_depthwise(**case, elsewhere=True, optimized=True)


@pytest.mark.parametrize('stride, dilation', ((1, 1), (2, 1), (1, 2), (2, 2)))
@pytest.mark.parametrize('height, width', ((1, 2), (16, 7)))
def test_depthwise_on_one_row_and_at_even_sizes(
  height, width, stride, dilation
):
  _check_depthwise(
    batch=2,
    height=height,
    width=width,
    channels=11,
    size=3,
    stride=stride,
    dilation=dilation,
  )


def _check_dense(
  form, *, batch, height, width, channels, features, size, pad, **kwargs
):
  choices = {
    name: kwargs.pop(name) for name in ('stride', 'dilation') if name in kwargs
  }
  conv_parity.assert_same(
    functools.partial(form, **choices),
    functools.partial(conv_parity.xla_conv, pad=pad, **choices),
    (batch, height, width, channels),
    (size, size, channels, features),
    **kwargs,
  )


_POINTWISE = hypothesis.given(
  **_ANY_DENSE,
  form=st.sampled_from((pointwise.conv, conv.conv)),
  stride=st.integers(1, 3),
)


@_settings(max_examples=2)
@_POINTWISE
def test_pointwise_is_the_1x1_convolution(**case):
  _check_dense(**case, size=1, pad=0)


@pytest.mark.long
@_settings(max_examples=16)
@_POINTWISE
def test_pointwise_is_the_1x1_convolution_at_length(**case):
  _check_dense(**case, size=1, pad=0, optimized=True)


def _check_plain(*, size, padding, **case):
  # A grid smaller than the kernel has no output without padding.
  side = min(case['height'], case['width'])
  hypothesis.assume(padding is None or side + 2 * padding >= size)
  _check_dense(
    functools.partial(conv.conv, padding=padding),
    size=size,
    pad=size // 2 if padding is None else padding,
    **case,
  )


_PLAIN = hypothesis.given(
  **_ANY_DENSE,
  size=st.sampled_from((1, 3, 5)),
  stride=st.integers(1, 3),
  padding=st.sampled_from((None, 0, 1, 2)),
)


@_settings(max_examples=2)
@_PLAIN
def test_plain_conv_is_xla_s(**case):
  _check_plain(**case)


@pytest.mark.long
@_settings(max_examples=16)
@_PLAIN
def test_plain_conv_is_xla_s_at_length(**case):
  _check_plain(**case, optimized=True)


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
@pytest.mark.parametrize(
  'padding, x_shape, features',
  (
    (None, (2, 9, 6, 16), 23),
    (0, (3, 5, 8, 17), 16),
    (2, (1, 1, 4, 31), 18),
    (1, (1, 7, 7, 127), 130),
    # Several bands of rows, and several tiles of pixels and features.
    (1, (2, 37, 29, 20), 53),
  ),
)
def test_plain_conv_of_few_channels(padding, x_shape, features, dtype):
  """Too few channels for Winograd's form, enough for matrix products."""
  conv_parity.assert_same(
    functools.partial(conv.conv, padding=padding),
    functools.partial(
      conv_parity.xla_conv, pad=1 if padding is None else padding
    ),
    x_shape,
    (3, 3, x_shape[-1], features),
    dtype=dtype,
  )


def test_a_1x1_kernel_can_be_padded():
  _check_dense(
    functools.partial(conv.conv, padding=1),
    batch=1,
    height=3,
    width=2,
    channels=2,
    features=3,
    size=1,
    pad=1,
  )


def _check_dilated(*, size, dilation, **case):
  _check_dense(
    conv.conv, size=size, dilation=dilation, pad=dilation * (size // 2), **case
  )


# The highest rates are so large that only the centre tap is inside the grid.
_DILATED = hypothesis.given(
  **_ANY_DENSE,
  size=st.sampled_from((3, 5)),
  dilation=st.integers(2, 24),
)


@_settings(max_examples=2)
@_DILATED
def test_dilated_conv_at_any_rate(**case):
  _check_dilated(**case)


@pytest.mark.long
@_settings(max_examples=24)
@_DILATED
def test_dilated_conv_at_any_rate_at_length(**case):
  _check_dilated(**case, optimized=True)


@pytest.mark.parametrize('dilation', (6, 13, 14, 18))
def test_dilated_conv_on_the_paper_s_grid(dilation):
  # 13 is the highest rate at which an outer tap is inside a 14 x 14 grid.
  _check_dilated(
    batch=1,
    height=14,
    width=14,
    channels=3,
    features=2,
    size=3,
    dilation=dilation,
  )


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_layers_of_the_paper_s_network(dtype):
  # The depthwise and pointwise convolutions of a middle block, the strided one
  # onto the 14 x 14 grid, and those of the tail at dilation 2.
  common = {'batch': 1, 'dtype': dtype, 'optimized': True}
  grid = {'height': 14, 'width': 14, **common}
  for stride, dilation, side, channels in (
    (1, 1, 14, 728),
    (2, 1, 28, 728),
    (1, 2, 14, 1536),
  ):
    _check_depthwise(
      height=side,
      width=side,
      channels=channels,
      size=3,
      stride=stride,
      dilation=dilation,
      **common,
    )
  _check_dense(
    pointwise.conv, channels=728, features=728, size=1, pad=0, **grid
  )
  _check_dilated(channels=2048, features=32, size=3, dilation=6, **grid)


@pytest.mark.parametrize(
  'form, kernel_shape',
  (
    (functools.partial(depthwise.conv, stride=2), (3, 3, 1, 5)),
    (pointwise.conv, (1, 1, 5, 4)),
    (conv.conv, (3, 3, 5, 4)),
    (functools.partial(conv.conv, dilation=3), (3, 3, 5, 4)),
  ),
  ids=('depthwise', 'pointwise', 'plain', 'dilated'),
)
def test_vmap_agrees_with_single_calls(form, kernel_shape):
  # Training steps are mapped over devices to synchronise batch statistics.
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.integers(-3, 4, (3, 2, 7, 6, 5)), jnp.float32)
  kernel = jnp.asarray(rng.integers(-3, 4, kernel_shape), jnp.float32)

  def out_and_gradients(x, kernel):
    out, pull = jax.vjp(form, x, kernel)
    # Integers again, so that sums are exact.
    return out, *pull(jnp.sign(out))

  mapped = fast_compile.jit(jax.vmap(out_and_gradients, (0, None)))(x, kernel)
  alone = fast_compile.jit(out_and_gradients)
  one_by_one = [alone(one, kernel) for one in x]
  for got, expected in zip(mapped, zip(*one_by_one, strict=True), strict=True):
    np.testing.assert_array_equal(got, jnp.stack(expected))
