"""Convolutions with batch norms and ReLUs folded in, or one after the other."""

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
  """As `folded.separable_conv`, of XLA's convolutions and Flax's ReLU."""
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
  """The arguments of a separable convolution."""

  def values(*shape):
    if integers:
      # Every sum below stays under 2^24: exact in float32.
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


# Always the same examples: a few by default, many among the slow tests.
_settings = functools.partial(
  hypothesis.settings, deadline=None, derandomize=True, database=None
)

# Channels and features in vectors of every length and several at once; rows in
# bands that end unevenly, some of one row.
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


# The paper's shapes, of which the first has bands for its size, not for the
# number of threads.
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
  # A sum of n products rounds like a walk of n steps: sqrt(n) units.
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


def test_gradients_are_those_of_the_operations_one_by_one():
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
  for form, reference, given in (
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
    out, pull = jax.vjp(reference, *given)
    ours, pull_ours = jax.vjp(form, *given)
    np.testing.assert_array_equal(ours, out)
    # Integers whose sums pass 2^24 here and there.
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
  """Of fewer or of more digits than the network computes with."""
  dtype = jnp.float64 if wide else jnp.bfloat16
  net = mtnet.ClassNet(**_SMALL, tail_widths=(16, 20), use_coarse_mask=False)
  x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
  with jax.enable_x64(wide):
    forward = fast_compile.jit(lambda *given: net.apply(*given, train=False)[0])
    variables = jax.tree.map(
      lambda value: jnp.asarray(value, dtype), _variables(net, x)
    )
    assert '@mtnet_separable(' in forward.lower(variables, x).as_text()
    logits = forward(variables, x)
    with target.portable():
      plain = forward(variables, x)
    assert logits.dtype == plain.dtype
    np.testing.assert_allclose(logits, plain, rtol=1e-4)
    # A few channels without anything folded in, and what goes back.
    kernel = jnp.ones((3, 3, 3, 4), jnp.float32)
    total = jnp.sum(conv.conv(jnp.asarray(x), kernel))
    np.testing.assert_allclose(total, 4 * np.sum(_nine_times(x)), rtol=1e-3)


def _variables(net, *inputs):
  """Random ones, of which none are those of a fresh network."""
  shapes = jax.eval_shape(
    functools.partial(net.init, train=False), jax.random.key(0), *inputs
  )
  return made_run.draw_like(shapes, seed=0)


def _nine_times(x):
  """Every pixel as often as a 3 x 3 window with zeros around it meets it."""
  count = np.pad(np.ones(x.shape[1:3]), 1)
  times = sum(
    np.roll(count, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)
  )[1:-1, 1:-1]
  return x * times[..., None]


@pytest.mark.parametrize('relu', _RELUS)
def test_what_is_not_a_number_arrives(relu):
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
    # Blocks 1 to 3, one of the middle, the exit; two of the tail.
    (mtnet.ClassNet(**_SMALL, tail_widths=(16, 20)), 3 * 2 + 3 + 2 + 2, 2),
    # Three per block; three of the tail; decoder and stem.
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
  # Logits and all taps, which say something.
  for one, other in zip(*map(jax.tree.leaves, (native, plain)), strict=True):
    assert float(jnp.std(other)) > 1e-2
    worst = float(jnp.abs(one - other).max())
    assert worst < 1e-5 * float(jnp.abs(other).max())
