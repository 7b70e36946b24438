"""Fused convolutions agree with the separate operations."""

import functools

import conv_parity
import fast_compile
from flax import linen as nn
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import made_run
import numpy as np
import pytest

from mtnet_jax.models import mtnet
from mtnet_jax.ops import common
from mtnet_jax.ops import conv
from mtnet_jax.ops import folded
from mtnet_jax.ops import target
from mtnet_jax.ops.native import library

pytestmark = pytest.mark.skipif(
  not library.loaded(), reason='no C++ loops on this machine'
)

_RELUS = ('relu_before', 'relu_between', 'relu_after')


def _separable(x, depthwise, between, pointwise, after, **choices):
  """Computes `folded.separable_conv` with XLA's convolutions."""
  relus = [nn.relu if choices.get(name) else (lambda x: x) for name in _RELUS]
  dilation = choices.get('dilation', 1)
  x = conv_parity.xla_conv(
    relus[0](x),
    depthwise,
    stride=choices.get('stride', 1),
    dilation=dilation,
    pad=dilation,
    groups=x.shape[-1],
  )
  x = relus[1](x * between.scale + between.shift)
  x = conv_parity.xla_conv(x, pointwise, pad=0)
  return relus[2](x * after.scale + after.shift)


def _draw(rng, *, integers, batch, height, width, channels, features):
  """Draws the arguments of a separable convolution."""

  def values(*shape):
    if integers:
      # All sums stay below 2^24, so they are exact in float32.
      return jnp.asarray(rng.integers(-3, 4, shape), jnp.float32)
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  def affine(size):
    return common.Affine(values(size), values(size))

  return (
    values(batch, height, width, channels),
    values(3, 3, 1, channels),
    affine(channels),
    values(1, 1, channels, features),
    affine(features),
  )


# Derandomised: the examples are the same in every run, few by default, and many
# in the slow tests.
_settings = functools.partial(
  hypothesis.settings, deadline=None, derandomize=True, database=None
)

# The sizes need vectors of all lengths, several vectors, and incomplete bands
# of rows, some with a single row.
_SEPARABLE = hypothesis.given(
  sizes=st.fixed_dictionaries(
    {
      'batch': st.integers(1, 3),
      'height': st.integers(1, 23),
      'width': st.integers(1, 33),
      'channels': st.integers(1, 45),
      'features': st.integers(1, 75),
    }
  ),
  step=st.sampled_from(((1, 1), (1, 2), (1, 3), (2, 1))),
  relus=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)


def _check_separable(sizes, step, relus):
  choices = {
    'stride': step[0],
    'dilation': step[1],
    **dict(zip(_RELUS, relus, strict=True)),
  }
  arguments = _draw(np.random.default_rng(0), integers=True, **sizes)
  np.testing.assert_array_equal(
    folded.separable_conv(*arguments, **choices),
    _separable(*arguments, **choices),
  )


@_settings(max_examples=10)
@_SEPARABLE
def test_separable_is_the_same_to_the_last_bit_where_sums_are_exact(**case):
  _check_separable(**case)


@pytest.mark.slow
@_settings(max_examples=30)
@_SEPARABLE
def test_separable_is_the_same_to_the_last_bit_at_length(**case):
  _check_separable(**case)


# The paper's shapes. The first one is split into bands because of its size, the
# others because of the number of threads.
@pytest.mark.parametrize(
  'height, channels, features, choices',
  (
    (56, 256, 256, {'relu_before': True}),
    (14, 728, 728, {'relu_before': True}),
    (14, 1536, 2048, {'dilation': 2, 'relu_after': True}),
    (28, 728, 728, {'stride': 2, 'relu_between': True}),
  ),
)
def test_separable_at_the_paper_s_sizes(height, channels, features, choices):
  arguments = _draw(
    np.random.default_rng(0),
    integers=False,
    batch=2,
    height=height,
    width=height,
    channels=channels,
    features=features,
  )
  expected = np.asarray(_separable(*arguments, **choices))
  result = np.asarray(folded.separable_conv(*arguments, **choices))
  error = np.abs(result - expected).max()
  # The rounding errors of a sum of n products add up like a random walk, to
  # about sqrt(n) units.
  unit = 2.0**-24 * np.sqrt(9 * channels)
  assert error <= 4 * unit * np.abs(expected).max()


def _few_channels(x, kernel, after, *, stride, pad):
  x = conv_parity.xla_conv(x, kernel, stride=stride, pad=pad)
  return nn.relu(x * after.scale + after.shift)


@pytest.mark.parametrize('stride', (1, 2))
@pytest.mark.parametrize('pad', (0, 1, 2))
@pytest.mark.parametrize(
  'shape, features',
  (((2, 11, 8, 3), 32), ((1, 7, 31, 4), 5), ((1, 6, 5, 32), 67)),
)
def test_few_channels_to_the_last_bit(shape, features, pad, stride):
  rng = np.random.default_rng(0)
  x, kernel, scale, shift = (
    jnp.asarray(rng.integers(-3, 4, size), jnp.float32)
    for size in (shape, (3, 3, shape[-1], features), features, features)
  )
  arguments = x, kernel, common.Affine(scale, shift)
  np.testing.assert_array_equal(
    folded.few_channels_conv(*arguments, stride=stride, pad=pad),
    _few_channels(*arguments, stride=stride, pad=pad),
  )


def test_gradients_are_those_of_the_separate_operations():
  arguments = _draw(
    np.random.default_rng(0),
    integers=True,
    batch=2,
    height=5,
    width=6,
    channels=7,
    features=9,
  )
  choices = dict.fromkeys(_RELUS, True)
  kernel = jnp.asarray(
    np.random.default_rng(1).integers(-3, 4, (3, 3, 7, 4)), jnp.float32
  )
  after = common.Affine(kernel[0, 0, 0], kernel[1, 1, 1])
  for form, reference, inputs in (
    (
      functools.partial(folded.separable_conv, **choices),
      functools.partial(_separable, **choices),
      arguments,
    ),
    (
      functools.partial(folded.few_channels_conv, stride=2, pad=1),
      functools.partial(_few_channels, stride=2, pad=1),
      (arguments[0], kernel, after),
    ),
  ):
    out, pull = jax.vjp(reference, *inputs)
    ours, pull_ours = jax.vjp(form, *inputs)
    np.testing.assert_array_equal(ours, out)
    # Some sums of integers exceed 2^24, so they are not exact.
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-3),
      pull_ours(out),
      pull(out),
    )


_SMALL = {
  'stem_widths': (4, 6),
  'entry_widths': (8, 8, 12),
  'middle_blocks': 1,
  'exit_width': 12,
}


@pytest.mark.parametrize('wide', (False, True))
def test_variables_of_other_types(wide):
  """Variables may be stored in a shorter or longer type than the network's."""
  dtype = jnp.float64 if wide else jnp.bfloat16
  net = mtnet.ClassNet(**_SMALL, tail_widths=(16, 20), use_coarse_mask=False)
  x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
  with jax.enable_x64(wide):
    forward = fast_compile.jit(
      lambda *inputs: net.apply(*inputs, train=False)[0]
    )
    variables = jax.tree.map(
      lambda value: jnp.asarray(value, dtype), _variables(net, x)
    )
    assert '@mtnet_separable(' in forward.lower(variables, x).as_text()
    logits = forward(variables, x)
    with target.portable():
      plain = forward(variables, x)
    assert logits.dtype == plain.dtype
    np.testing.assert_allclose(logits, plain, rtol=1e-4)
    # A convolution with few channels and nothing fused with it.
    kernel = jnp.ones((3, 3, 3, 4), jnp.float32)
    total = jnp.sum(conv.conv(jnp.asarray(x), kernel))
    np.testing.assert_allclose(total, 4 * np.sum(_nine_times(x)), rtol=1e-3)


def _variables(net, *inputs):
  """Draws random variables, none of which has its initial value."""
  shapes = jax.eval_shape(
    functools.partial(net.init, train=False), jax.random.key(0), *inputs
  )
  return made_run.draw_like(shapes, seed=0)


def _nine_times(x):
  """Multiplies each pixel by the number of 3 x 3 windows that contain it."""
  count = np.pad(np.ones(x.shape[1:3]), 1)
  times = sum(
    np.roll(count, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)
  )[1:-1, 1:-1]
  return x * times[..., None]


@pytest.mark.parametrize('relu', _RELUS)
def test_nan_propagates(relu):
  x, *rest = _draw(
    np.random.default_rng(0),
    integers=True,
    batch=1,
    height=9,
    width=9,
    channels=20,
    features=20,
  )
  out = folded.separable_conv(
    x.at[0, 4, 4, 1].set(jnp.nan), *rest, **{relu: True}
  )
  assert np.isnan(out[0, 3:6, 3:6]).all()
  assert np.isnan(out).sum() == 9 * 20


@pytest.mark.slow
@pytest.mark.parametrize(
  'net, separable, dense',
  (
    # Two separable convolutions in each of blocks 1 to 3, three in the middle
    # block, two in the exit block, two in the tail; two dense in the stem.
    (mtnet.ClassNet(**_SMALL, tail_widths=(16, 20)), 3 * 2 + 3 + 2 + 2, 2),
    # Three in each of five blocks, three in the tail; two dense in the stem and
    # two in the decoder.
    (
      mtnet.CoarseSegNet(
        **_SMALL,
        tail_widths=(16, 16, 20),
        aspp_features=5,
        low_level_features=3,
        decoder_features=6,
      ),
      5 * 3 + 3,
      4,
    ),
  ),
)
def test_networks_fold_in_evaluation_only(net, separable, dense):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 64, 64, 3)), jnp.float32)
  inputs = (x,)
  if isinstance(net, mtnet.ClassNet):
    inputs = x, jnp.abs(x[..., :1])
  variables = _variables(net, *inputs)

  def train(variables, *inputs):
    return net.apply(
      variables,
      *inputs,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(0)},
    )[0][0]

  def forward():
    function = fast_compile.jit(functools.partial(net.apply, train=False))
    lowered = function.lower(variables, *inputs)
    return lowered.as_text(), lowered.compile()(variables, *inputs)

  text, native = forward()
  assert text.count('@mtnet_separable(') == separable
  assert text.count('@mtnet_conv3x3(') == dense
  assert text.count('@mtnet_depthwise_forward(') == 0
  text = jax.jit(train).lower(variables, *inputs).as_text()
  assert text.count('@mtnet_separable(') == 0
  assert text.count('@mtnet_depthwise_forward(') == separable
  with target.portable():
    text, plain = forward()
  assert 'mtnet_' not in text
  # Logits and all taps agree, and none is constant.
  for one, other in zip(*map(jax.tree.leaves, (native, plain)), strict=True):
    assert float(jnp.std(other)) > 1e-2
    worst = float(jnp.abs(one - other).max())
    assert worst < 1e-5 * float(jnp.abs(other).max())
