"""Winograd's form agrees with the sum over taps, and so do its gradients.

It computes other intermediate sums, so that integers are not exact. In float64,
which would reveal any wrong tap, results agree to 1e-12 of the largest value.
In float32, which is what networks use, they agree to 2e-5, a fifth of the
tolerance for whole networks.
"""

import functools

import conv_parity
import fast_compile
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from mtnet_jax.ops import conv
from mtnet_jax.ops import winograd


def _all_of(form, x, kernel, grad):
  out, pull = jax.vjp(form, x, kernel)
  return out, *pull(grad)


def _xla(x, kernel, pad=1):
  return conv_parity.xla_conv(x, kernel, pad=pad)


def _assert_agree(shape, features, *, dtype, tolerance, pad=1, seed=0):
  rng = np.random.default_rng(seed)
  batch, height, width, channels = shape
  values = (
    rng.normal(size=shape),
    rng.normal(size=(3, 3, channels, features)),
    rng.normal(
      size=(batch, height + 2 * pad - 2, width + 2 * pad - 2, features)
    ),
  )
  with jax.enable_x64(True), jax.default_matmul_precision('highest'):

    def computed(form, dtype):
      typed = (jnp.asarray(x, dtype) for x in values)
      function = jax.jit(
        lambda *args: _all_of(functools.partial(form, pad=pad), *args),
        compiler_options=fast_compile.OPTIONS,
      )
      return jax.device_get(function(*typed))

    ours = computed(winograd.conv, dtype)
    truth = computed(_xla, np.float64)
  for one, other in zip(ours, truth, strict=True):
    assert one.dtype == dtype
    assert oracles.relative(np.float64(one), other) < tolerance


@pytest.mark.parametrize(
  'hw', ((1, 1), (4, 4), (5, 3), (2, 13), (56, 56), (65, 33))
)
def test_sum_over_taps(hw):
  _assert_agree((2, *hw, 3), 5, dtype=np.float64, tolerance=1e-12)


@pytest.mark.parametrize('pad', (0, 2))
@pytest.mark.parametrize('hw', ((3, 4), (13, 10)))
def test_sum_over_taps_with_other_paddings(hw, pad):
  _assert_agree((2, *hw, 3), 5, dtype=np.float64, tolerance=1e-12, pad=pad)


def test_rounding_of_as_many_products_as_the_networks_have():
  _assert_agree((2, 12, 12, 304), 256, dtype=np.float32, tolerance=2e-5)


@pytest.mark.long
@hypothesis.settings(
  max_examples=25, deadline=None, derandomize=True, database=None
)
@hypothesis.given(
  batch=st.integers(1, 3),
  height=st.integers(1, 65),
  width=st.integers(1, 65),
  channels=st.integers(1, 19),
  features=st.integers(1, 19),
  seed=st.integers(0, 9),
)
def test_sum_over_taps_of_any_size(
  batch, height, width, channels, features, seed
):
  shape = (batch, height, width, channels)
  _assert_agree(shape, features, dtype=np.float64, tolerance=1e-12, seed=seed)
  _assert_agree(shape, features, dtype=np.float32, tolerance=2e-5, seed=seed)


@pytest.mark.parametrize(
  ('channels', 'options', 'used'),
  (
    (128, {}, True),
    (127, {}, False),
    (128, {'stride': 2}, False),
    (128, {'padding': 0}, True),
    (128, {'padding': 3}, False),
  ),
)
def test_where_it_is_used(monkeypatch, channels, options, used):
  calls = []

  def spy(x, kernel, pad):
    calls.append(x.shape)
    return _xla(x, kernel, pad)

  monkeypatch.setattr(winograd, 'conv', spy)
  jax.eval_shape(
    lambda x, kernel: conv.conv(x, kernel, **options),
    jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32),
    jax.ShapeDtypeStruct((3, 3, channels, 128), jnp.float32),
  )
  assert bool(calls) == used


def test_bfloat16_is_rounded_once():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(1, 8, 8, 128)), jnp.bfloat16)
  kernel = jnp.asarray(rng.normal(size=(3, 3, 128, 128)), jnp.bfloat16)
  with jax.default_matmul_precision('highest'):
    ours = conv.conv(x, kernel)
    truth = _xla(x.astype(jnp.float32), kernel.astype(jnp.float32))
  assert ours.dtype == jnp.bfloat16
  error = oracles.relative(np.float32(ours), np.asarray(truth))
  assert error < 2.0**-8
