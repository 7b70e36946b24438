"""Resizing and pooling, and their gradients, against PyTorch's."""

import functools

import fast_compile
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops import conv
from mtnet_jax.ops import pooling

torch = pytest.importorskip('torch', reason='needs the extra "interop"')

pytestmark = pytest.mark.extra

_search = functools.partial(
  hypothesis.settings,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
# Unit roundoff: half the distance from 1 to the next number.
_UNIT = {'float32': 2.0**-24, 'bfloat16': 2.0**-8}


def _ours(form, x, grad, dtype='float32'):
  """Returns the output and the input gradient, in NHWC."""

  @fast_compile.jit
  def both(x, grad):
    out, pull = jax.vjp(form, x)
    return out, *pull(grad)

  out, grad_x = both(jnp.asarray(x, dtype), jnp.asarray(grad, dtype))
  assert out.dtype == grad_x.dtype == dtype
  return np.asarray(out, np.float64), np.asarray(grad_x, np.float64)


def _theirs(form, x, grad):
  """Returns the same from PyTorch in float64, also in NHWC."""
  x, grad = (
    torch.from_numpy(np.asarray(a, np.float64).transpose(0, 3, 1, 2))
    for a in (x, grad)
  )
  x.requires_grad_()
  out = form(x)
  out.backward(grad)
  return tuple(a.detach().numpy().transpose(0, 2, 3, 1) for a in (out, x.grad))


def _check_resize(in_hw, out_hw, channels, dtype):
  rng = np.random.default_rng(0)
  x, grad = (
    # Rounded to the compute type.
    np.asarray(jnp.asarray(rng.normal(size=(2, *hw, channels)), dtype))
    for hw in (in_hw, out_hw)
  )
  theirs = functools.partial(
    _theirs,
    lambda x: torch.nn.functional.interpolate(
      x, out_hw, mode='bilinear', align_corners=True
    ),
  )
  got = _ours(lambda x: conv.resize_align_corners(x, out_hw), x, grad, dtype)
  truth = theirs(x, grad)
  magnitude = theirs(np.abs(x), np.abs(grad))
  # Along each axis, a weight is rounded, then its product, then a sum of this
  # many terms. In the forward pass, two weights of a row are not zero; in the
  # backward pass, all may be.
  for ours, exact, size, terms in zip(
    got, truth, magnitude, ((2, 2), out_hw), strict=True
  ):
    bound = (sum(terms) + 4) * 1.01 * _UNIT['float32'] * size
    if dtype == 'bfloat16':
      # The result is rounded once more, to bfloat16.
      bound = 1.01 * bound + _UNIT[dtype] * np.abs(exact)
    assert (np.abs(ours - exact) <= bound).all()


@_search(max_examples=20)
@hypothesis.given(
  in_hw=st.tuples(st.integers(1, 65), st.integers(1, 65)),
  out_hw=st.tuples(st.integers(1, 65), st.integers(1, 65)),
  channels=st.integers(1, 5),
  dtype=st.sampled_from(('float32', 'bfloat16')),
)
def test_resize_is_interpolate(in_hw, out_hw, channels, dtype):
  _check_resize(in_hw, out_hw, channels, dtype)


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
@pytest.mark.parametrize(
  'in_hw, out_hw',
  (
    ((14, 14), (56, 56)),
    ((56, 56), (224, 224)),
    ((1, 1), (1, 1)),
    ((1, 7), (5, 1)),
    ((7, 1), (1, 5)),
    ((1, 1), (9, 4)),
    ((9, 4), (1, 1)),
    ((2, 2), (2, 3)),
  ),
)
def test_resize_at_the_networks_and_single_sizes(in_hw, out_hw, dtype):
  _check_resize(in_hw, out_hw, 3, dtype)


def _torch_max_pool(x, *, size, stride, padding):
  """Pads explicitly with -inf, which allows both kinds of padding."""
  pads = []
  for side in reversed(x.shape[2:]):
    if padding == 'same':
      # Keras pads as little as possible, with the larger half at the end.
      total = max((-(-side // stride) - 1) * stride + size - side, 0)
      pads += [total // 2, total - total // 2]
    else:
      pads += [size // 2, size // 2]
  x = torch.nn.functional.pad(x, pads, value=-torch.inf)
  return torch.nn.functional.max_pool2d(x, size, stride)


@_search(max_examples=20)
@hypothesis.given(
  hw=st.tuples(st.integers(1, 33), st.integers(1, 33)),
  channels=st.integers(1, 5),
  size=st.sampled_from((3, 5)),
  stride=st.integers(1, 3),
  padding=st.sampled_from(('same', 'symmetric')),
  dtype=st.sampled_from(('float32', 'bfloat16')),
)
def test_max_pool_is_torch_s(hw, channels, size, stride, padding, dtype):
  rng = np.random.default_rng(0)
  out_hw = (-(-hw[0] // stride), -(-hw[1] // stride))
  # All values are different, and exact in bfloat16. Frameworks differ in which
  # of two equal maxima receives the gradient.
  count = hw[0] * hw[1]
  x = np.stack([rng.permutation(count) for _ in range(2 * channels)], -1)
  x = x.reshape(*hw, 2, channels).transpose(2, 0, 1, 3) - count / 2.0
  grad = rng.integers(-3, 4, (2, *out_hw, channels))
  hypothesis.assume(dtype == 'float32' or count <= 256)
  got = _ours(
    functools.partial(
      pooling.max_pool, size=size, stride=stride, padding=padding
    ),
    x,
    grad,
    dtype,
  )
  expected = _theirs(
    functools.partial(
      _torch_max_pool, size=size, stride=stride, padding=padding
    ),
    x,
    grad,
  )
  for ours, exact in zip(got, expected, strict=True):
    np.testing.assert_array_equal(ours, exact)


@pytest.mark.parametrize('hw', ((8, 7), (13, 1), (28, 28)))
def test_symmetric_max_pool_is_torch_s_own_padding(hw):
  x = np.random.default_rng(0).normal(size=(2, *hw, 3)).astype(np.float32)
  theirs = torch.nn.functional.max_pool2d(
    torch.from_numpy(x.transpose(0, 3, 1, 2)), 3, 2, padding=1
  )
  np.testing.assert_array_equal(
    pooling.max_pool(x), theirs.numpy().transpose(0, 2, 3, 1)
  )
