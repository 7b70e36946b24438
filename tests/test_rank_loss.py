"""Rank loss against the paper's double sum in float64 (equation 3).

Probabilities and margins are multiples of 1/64 or 1/128, so that sums of a few
of them are exact in float32, ties are frequent, and some pairs are exactly at
the hinge.
"""

import functools
import sys

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import main_job
import numpy as np
import pytest

from mtnet_jax import losses

_search = functools.partial(
  hypothesis.settings,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
# Image size and K. K is below, near and above the number of pixels. There are
# few pairs, because each one is compiled.
_SIZES = (((1, 1), 1), ((1, 7), 3), ((5, 6), 20), ((12, 10), 20), ((5, 6), 50))


def _double_sum(probs, mask, *, top_k, margin):
  """Equation (3) for one image, in float64."""
  probs, mask = np.ravel(probs).astype(np.float64), np.ravel(mask) > 0
  hardest_background = np.sort(probs[~mask])[::-1][:top_k]
  hardest_nodule = np.sort(probs[mask])[:top_k]
  total = 0.0
  for h0 in hardest_background:
    for h1 in hardest_nodule:
      total += max(0.0, h0 - h1 + margin)
  return total / top_k**2


@functools.partial(jax.jit, static_argnames='top_k')
def _loss_and_gradient(probs, mask, margin, *, top_k):
  def total(probs):
    loss = losses.rank_loss(probs, mask, top_k=top_k, margin=margin)
    return loss.sum(), loss

  (_, loss), grad = jax.value_and_grad(total, has_aux=True)(probs)
  return loss, grad


@st.composite
def _images(draw):
  """Draws three images of multiples of 1/64, with any share of nodule."""
  hw, top_k = draw(st.sampled_from(_SIZES))
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  # Few levels cause many ties.
  levels = draw(st.sampled_from((1, 4, 64)))
  probs = rng.integers(0, levels + 1, (3, *hw, 1)) / levels
  # The nodule has none of the pixels, fewer than K, half, or all of them.
  share = np.asarray(draw(st.sampled_from((0, 0.1, 0.5, 0.9, 1))))
  mask = rng.random((3, *hw, 1)) < share
  return probs.astype(np.float32), mask.astype(np.float32), top_k


@_search(max_examples=100)
@hypothesis.given(
  images=_images(), margin=st.sampled_from((0, 0.25, 0.296875, 1))
)
def test_value_is_the_double_sum(images, margin):
  probs, mask, top_k = images
  loss, _ = _loss_and_gradient(probs, mask, margin, top_k=top_k)
  expected = [
    _double_sum(p, m, top_k=top_k, margin=margin)
    for p, m in zip(probs, mask, strict=True)
  ]
  # Everything is exact except the division by K^2.
  np.testing.assert_allclose(loss, expected, rtol=2**-22, atol=0)


@_search(max_examples=100)
@hypothesis.given(
  images=_images(),
  others=st.integers(0, 2**32 - 1),
  margin=st.sampled_from((0, 0.25, 1)),
)
def test_gradient_is_a_subgradient_at_ties_and_hinges_too(
  images, others, margin
):
  # The sum over the hardest pixels is the maximum over all choices of K pixels
  # of each region, and each hinge is convex. So the loss is convex, and it has
  # a subgradient g, with L(q) >= L(p) + g (q - p), where it has no gradient.
  probs, mask, top_k = images
  loss, grad = _loss_and_gradient(probs, mask, margin, top_k=top_k)
  assert np.isfinite(grad).all()
  rng = np.random.default_rng(others)
  for scale in (1e-3, 1):
    q = np.clip(probs + scale * rng.normal(size=probs.shape), 0, 1)
    for i in range(len(q)):
      at_q = _double_sum(q[i], mask[i], top_k=top_k, margin=margin)
      linear = np.sum(np.asarray(grad[i], np.float64) * (q[i] - probs[i]))
      assert at_q >= loss[i] + linear - 1e-6


@jax.jit
def _with_traced_k(probs, mask, margin, top_k):
  def total(probs):
    loss = losses.rank_loss(
      probs, mask, top_k=top_k, margin=margin, max_top_k=50
    )
    return loss.sum(), loss

  (_, loss), grad = jax.value_and_grad(total, has_aux=True)(probs)
  return loss, grad


@pytest.mark.parametrize('top_k', (1, 10, 20, 50))
@pytest.mark.parametrize('share', (0, 0.05, 0.4, 1))
def test_a_traced_k_agrees_with_a_constant_k(top_k, share):
  # There are 120 pixels. At 5 % nodule, they are fewer than most K.
  rng = np.random.default_rng(top_k)
  probs = (rng.integers(0, 65, (3, 12, 10, 1)) / 64).astype(np.float32)
  mask = (rng.random(probs.shape) < share).astype(np.float32)
  loss, grad = _with_traced_k(probs, mask, 0.25, top_k)
  np.testing.assert_allclose(
    loss,
    [
      _double_sum(p, m, top_k=top_k, margin=0.25)
      for p, m in zip(probs, mask, strict=True)
    ],
    rtol=2**-22,
    atol=0,
  )
  constant = _loss_and_gradient(probs, mask, 0.25, top_k=top_k)
  np.testing.assert_allclose(loss, constant[0], rtol=2**-22, atol=0)
  np.testing.assert_allclose(grad, constant[1], rtol=2**-22, atol=0)
  if share in (0, 1):
    assert not np.any(loss) and not np.any(grad)
  else:
    assert np.all(loss > 0)


def test_all_k_up_to_the_maximum_share_one_program():
  before = _with_traced_k._cache_size()
  assert before <= 1
  probs, mask = _random((3, 12, 10, 1))
  for top_k in (1, 7, 50):
    _with_traced_k(probs, mask, 0.3, top_k)
  assert _with_traced_k._cache_size() == 1


@_search(max_examples=20)
@hypothesis.given(
  size=st.sampled_from(_SIZES),
  seed=st.integers(0, 2**32 - 1),
  share=st.sampled_from((0.1, 0.5)),
)
def test_gradient_is_that_of_finite_differences(size, seed, share):
  hw, top_k = size
  rng = np.random.default_rng(seed)
  count = hw[0] * hw[1]
  # All probabilities differ, and every pair is 1/256 away from its hinge, so
  # the loss is linear near these values.
  probs = rng.permutation(count).reshape(1, *hw, 1) / 128
  mask = (rng.random(probs.shape) < share).astype(np.float32)
  margin = 0.25 + 1 / 256
  _, grad = _loss_and_gradient(
    probs.astype(np.float32), mask, margin, top_k=top_k
  )
  step = 2.0**-10
  expected = np.zeros(count)
  for i in range(count):
    moved = step * np.eye(1, count, i).reshape(probs.shape)
    up, down = (
      _double_sum(probs + sign * moved, mask, top_k=top_k, margin=margin)
      for sign in (1, -1)
    )
    expected[i] = (up - down) / (2 * step)
  np.testing.assert_allclose(np.ravel(grad), expected, rtol=1e-6, atol=1e-9)


@_search(max_examples=30)
@hypothesis.given(images=_images(), seed=st.integers(0, 2**32 - 1))
def test_order_of_pixels_does_not_matter(images, seed):
  probs, mask, top_k = images
  order = np.random.default_rng(seed).permutation(probs[0].size)
  shuffled = (
    x.reshape(3, -1)[:, order].reshape(x.shape) for x in (probs, mask)
  )
  loss, _ = _loss_and_gradient(probs, mask, 0.25, top_k=top_k)
  again, _ = _loss_and_gradient(*shuffled, 0.25, top_k=top_k)
  np.testing.assert_array_equal(again, loss)


def test_pairs_exactly_at_the_hinge_have_no_gradient():
  # .25 - .5 + .25 = 0.
  probs = jnp.asarray([0.25, 0.5], jnp.float32).reshape(1, 1, 2, 1)
  mask = jnp.asarray([0.0, 1.0]).reshape(1, 1, 2, 1)
  loss, grad = _loss_and_gradient(probs, mask, 0.25, top_k=1)
  assert loss[0] == 0
  np.testing.assert_array_equal(np.ravel(grad), [0, 0])


def test_through_a_saturated_sigmoid_gradients_stay_finite():
  # Probabilities of exactly 0 and 1, on the wrong side and on the right one.
  logits = jnp.asarray([-200.0, 200, -200, 200]).reshape(1, 2, 2, 1)
  mask = jnp.asarray([0.0, 0, 1, 1]).reshape(1, 2, 2, 1)
  grad = jax.jit(
    jax.grad(
      lambda logits: losses.hybrid_loss(jax.nn.sigmoid(logits), mask).sum()
    )
  )(logits)
  assert np.isfinite(grad).all()


def _random(shape):
  rng = np.random.default_rng(0)
  probs = rng.integers(0, 65, shape) / 64
  return probs.astype(np.float32), (rng.random(shape) < 0.4).astype(np.float32)


def test_vmap_agrees_with_single_calls():
  probs, mask = _random((4, 2, 6, 5, 1))
  form = functools.partial(_loss_and_gradient, margin=0.25, top_k=20)
  got = jax.vmap(form)(probs, mask)
  expected = [form(*one) for one in zip(probs, mask, strict=True)]
  for mapped, one_by_one in zip(got, zip(*expected, strict=True), strict=True):
    np.testing.assert_array_equal(mapped, jnp.stack(one_by_one))


_PMAP = """
import jax, numpy as np
from mtnet_jax import losses

assert jax.local_device_count() == 4
rng = np.random.default_rng(0)
probs = (rng.integers(0, 65, (4, 2, 6, 5, 1)) / 64).astype(np.float32)
mask = (rng.random(probs.shape) < 0.4).astype(np.float32)

# Errors and margin are multiples of 1/64, and K^2 and the number of images are
# powers of two. So no sum is rounded, and the order of additions does not
# matter.
def mean_loss(probs, mask):
  return losses.rank_loss(probs, mask, top_k=16, margin=0.25).mean()

def mapped(probs, mask):
  return jax.lax.pmean(mean_loss(probs, mask), 'batch')

loss = jax.pmap(mapped, axis_name='batch')(probs, mask)
grad = jax.pmap(jax.grad(mean_loss))(probs, mask)
whole = (8, 6, 5, 1)
expected, expected_grad = jax.value_and_grad(mean_loss)(
    probs.reshape(whole), mask.reshape(whole))
np.testing.assert_array_equal(loss, [expected] * 4)
# A device averages over a quarter of the images only.
np.testing.assert_array_equal(grad.reshape(whole) / 4, expected_grad)
"""


@pytest.mark.slow
def test_four_devices_give_the_loss_of_one():
  done = main_job.run(
    [sys.executable, '-c', _PMAP],
    XLA_FLAGS='--xla_force_host_platform_device_count=4',
  )
  assert done.returncode == 0, done.stderr[-3000:]
