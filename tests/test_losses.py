"""Losses against values derived by hand, and against loops in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import losses


def _images(*rows):
  """Makes a batch of images of one row each."""
  return jnp.asarray(rows, jnp.float32)[:, None, :, None]


def _random(seed, *, share=0.4, shape=(3, 6, 5, 1)):
  rng = np.random.default_rng(seed)
  mask = (rng.random(shape) < share).astype(np.float32)
  return rng.random(shape).astype(np.float32), mask


def _dice_by_hand(probs, mask, eps=1e-5):
  probs, mask = np.asarray(probs, np.float64), np.asarray(mask, np.float64)
  return 1 - 2 * (probs * mask).sum() / ((probs + mask).sum() + eps)


def _rank_by_loops(probs, mask, *, top_k, margin):
  """Equation (3) for one image."""
  probs = np.asarray(probs, np.float64).ravel()
  mask = np.asarray(mask).ravel() > 0.5
  hardest_background = sorted(probs[~mask], reverse=True)[:top_k]
  hardest_nodule = sorted(probs[mask])[:top_k]
  total = 0.0
  for h0, h1 in itertools.product(hardest_background, hardest_nodule):
    total += max(0.0, h0 - h1 + margin)
  return total / top_k**2


def test_dice_by_hand():
  # The overlap is .5 + 1 = 1.5, and the sums are (.5 + 1 + .5 + 0) + 2 = 4, so
  # the loss is 1 - 2 * 1.5 / 4 = .25.
  probs = _images([0.5, 1.0, 0.5, 0.0])
  mask = _images([1, 1, 0, 0])
  np.testing.assert_allclose(losses.dice_loss(probs, mask), [0.25], atol=1e-5)


def test_dice_is_per_image():
  # A perfect mask: 1 - 4/4. A disjoint one: 1 - 0. Half the nodule: 1 - 2/3.
  probs = _images([1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0])
  mask = _images(*[[1, 1, 0, 0]] * 3)
  np.testing.assert_allclose(
    losses.dice_loss(probs, mask), [0, 1, 1 / 3], atol=1e-5
  )


def test_dice_eps_is_in_the_denominator():
  # 1 - 2 / (2 + 2).
  one = _images([1.0])
  np.testing.assert_allclose(losses.dice_loss(one, one, eps=2.0), [0.5])


def test_dice_without_nodule_and_prediction_is_one():
  zeros = jnp.zeros((2, 3, 3, 1))
  np.testing.assert_array_equal(losses.dice_loss(zeros, zeros), [1, 1])
  grad = jax.grad(lambda p: losses.dice_loss(p, zeros).sum())(zeros)
  assert np.isfinite(grad).all()


def test_rank_by_hand():
  # With K = 2, H0 is (.9, .4), and H1 the lowest two of .3, .6, .8. The pairs
  # are .9-.3+.3 = .9, .9-.6+.3 = .6, .4-.3+.3 = .4 and .4-.6+.3 = .1. Their sum
  # of 2 is divided by K^2 = 4.
  probs = _images([0.9, 0.4, 0.1, 0.3, 0.6, 0.8])
  mask = _images([0, 0, 0, 1, 1, 1])
  loss = losses.rank_loss(probs, mask, top_k=2, margin=0.3)
  np.testing.assert_allclose(loss, [0.5], rtol=1e-6)


@pytest.mark.parametrize('top_k', (1, 4, 20, 100))
@pytest.mark.parametrize('margin', (0.0, 0.3, 1.0))
def test_rank_is_equation_3(top_k, margin):
  # There are 30 pixels, about 12 of them nodule. K is smaller than the nodule,
  # between nodule and image, or larger than the image.
  probs, mask = _random(top_k)
  expected = [
    _rank_by_loops(p, m, top_k=top_k, margin=margin)
    for p, m in zip(probs, mask, strict=True)
  ]
  assert margin == 0 or min(expected) > 0
  loss = losses.rank_loss(probs, mask, top_k=top_k, margin=margin)
  assert loss.shape == (3,) and loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-7)


def test_rank_defaults_are_the_paper_s():
  probs, mask = _random(0, shape=(2, 12, 10, 1))
  np.testing.assert_allclose(
    losses.rank_loss(probs, mask),
    [
      _rank_by_loops(p, m, top_k=20, margin=0.3)
      for p, m in zip(probs, mask, strict=True)
    ],
    rtol=1e-5,
  )


@pytest.mark.parametrize('value', (0.0, 1.0))
def test_rank_of_an_image_with_one_region_is_exactly_zero(value):
  probs, _ = _random(0)
  mask = jnp.full_like(probs, value)
  loss, grad = jax.value_and_grad(
    lambda probs: losses.rank_loss(probs, mask).sum()
  )(probs)
  assert loss == 0
  np.testing.assert_array_equal(grad, np.zeros_like(probs))


def test_rank_of_three_nodule_pixels_counts_them_only():
  # All nodule pixels are .5 and all background is .4. With K = 20 there are
  # 20 x 3 pairs of .4 - .5 + .3 = .2 each, which add up to 12; 12 / 20^2 = .03.
  mask = jnp.zeros((1, 8, 8, 1)).at[0, 2, 3:6, 0].set(1)
  probs = jnp.where(mask > 0, 0.5, 0.4)
  np.testing.assert_allclose(losses.rank_loss(probs, mask), [0.03], rtol=1e-5)


def test_rank_counts_saturated_probabilities():
  # Pixels with an error of exactly 0 count, too. With a margin of 1.5,
  # background 0 and nodule 1 are a pair of 0 - 1 + 1.5 = .5. Four such pairs
  # over K^2 = 4.
  probs = mask = _images([0, 0, 1, 1])
  loss = losses.rank_loss(probs, mask, top_k=2, margin=1.5)
  np.testing.assert_allclose(loss, [0.5])


def test_rank_is_zero_where_regions_differ_by_the_margin():
  mask = _images([0, 0, 1, 1])
  apart = _images([0.1, 0.3, 0.65, 0.9])
  assert losses.rank_loss(apart, mask, top_k=2, margin=0.3) == 0
  assert losses.rank_loss(apart, mask, top_k=2, margin=0.4) > 0


def test_ties_change_neither_value_nor_total_gradient():
  # Four background pixels are .6, of which K = 2 count. The nodule is .5, .5,
  # so each pair is .6 - .5 + .3 = .4. The gradient is 2 pairs / K^2 = .5 for
  # any two of the background pixels, and -.5 for each nodule pixel.
  probs = _images([0.6, 0.6, 0.6, 0.6, 0.5, 0.5])
  mask = _images([0, 0, 0, 0, 1, 1])
  loss, grad = jax.value_and_grad(
    lambda probs: losses.rank_loss(probs, mask, top_k=2).sum()
  )(probs)
  grad = np.ravel(grad)
  np.testing.assert_allclose(loss, 0.4, rtol=1e-6)
  np.testing.assert_allclose(np.sort(grad[:4]), [0, 0, 0.5, 0.5])
  np.testing.assert_allclose(grad[4:], [-0.5, -0.5])


def test_hybrid_is_the_sum():
  probs, mask = _random(1)
  expected = [
    _dice_by_hand(p, m) + 0.02 * _rank_by_loops(p, m, top_k=20, margin=0.3)
    for p, m in zip(probs, mask, strict=True)
  ]
  np.testing.assert_allclose(
    losses.hybrid_loss(probs, mask), expected, rtol=1e-5
  )
  expected = [
    _dice_by_hand(p, m) + 0.5 * _rank_by_loops(p, m, top_k=3, margin=0.7)
    for p, m in zip(probs, mask, strict=True)
  ]
  np.testing.assert_allclose(
    losses.hybrid_loss(probs, mask, rank_weight=0.5, top_k=3, margin=0.7),
    expected,
    rtol=1e-5,
  )


def test_hybrid_without_rank_is_dice():
  probs, mask = _random(2)
  np.testing.assert_array_equal(
    losses.hybrid_loss(probs, mask, rank_weight=0.0),
    losses.dice_loss(probs, mask),
  )


def test_order_of_pixels_does_not_matter():
  probs, mask = _random(3)
  order = np.random.default_rng(0).permutation(30)
  shuffled = (
    x.reshape(3, 30)[:, order].reshape(x.shape) for x in (probs, mask)
  )
  np.testing.assert_allclose(
    losses.hybrid_loss(*shuffled, rank_weight=1.0),
    losses.hybrid_loss(probs, mask, rank_weight=1.0),
    rtol=1e-5,
  )


def test_gradient_is_that_of_finite_differences():
  probs, mask = _random(4, shape=(1, 4, 4, 1))

  def by_hand(probs):
    rank = _rank_by_loops(probs, mask, top_k=4, margin=0.3)
    return _dice_by_hand(probs, mask) + 0.5 * rank

  probs64 = probs.astype(np.float64)
  expected = np.zeros(16)
  for i in range(16):
    step = np.zeros(16)
    step[i] = 1e-6
    step = step.reshape(probs.shape)
    expected[i] = (by_hand(probs64 + step) - by_hand(probs64 - step)) / 2e-6
  grad = jax.grad(
    lambda probs: losses.hybrid_loss(
      probs, mask, rank_weight=0.5, top_k=4
    ).sum()
  )(probs)
  np.testing.assert_allclose(grad.ravel(), expected, rtol=1e-4, atol=1e-5)


def test_loss_of_bfloat16_probabilities_is_float32():
  probs, mask = _random(5)
  probs = jnp.asarray(probs, jnp.bfloat16)
  loss = losses.hybrid_loss(probs, mask)
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(
    loss, losses.hybrid_loss(probs.astype(jnp.float32), mask)
  )


@pytest.mark.parametrize('loss_fn', (losses.dice_loss, losses.rank_loss))
def test_differing_shapes_are_refused(loss_fn):
  with pytest.raises(ValueError, match=r'\(2, 4, 4, 1\)'):
    loss_fn(jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 4, 4)))


def test_classification_by_hand():
  # -log sigmoid(0) = log 2, and -log(1 - sigmoid(log 3)) = -log(1/4). The loss
  # of a large wrong logit is the logit itself, and finite.
  logits = jnp.asarray([0.0, np.log(3.0), 200.0, 200.0])
  labels = jnp.asarray([1, 0, 0, 1])
  np.testing.assert_allclose(
    losses.classification_loss(logits, labels),
    [np.log(2), np.log(4), 200, 0],
    rtol=1e-6,
    atol=1e-6,
  )


def test_pixel_cross_entropy_by_hand():
  # The probabilities of logits 0 and log 3 are 1/2 and 3/4.
  logits = jnp.log(jnp.array([[1.0, 3.0], [3.0, 1.0]])).reshape(2, 1, 2, 1)
  mask = jnp.array([[1.0, 0.0], [1.0, 1.0]]).reshape(2, 1, 2, 1)
  expected = [np.log(2 * 4) / 2, np.log(4 / 3 * 2) / 2]
  np.testing.assert_allclose(
    losses.pixel_cross_entropy(logits, mask), expected, rtol=1e-6
  )


def test_dice_has_a_tiny_gradient_where_everything_is_predicted_as_nodule():
  """Forty of 4096 pixels are nodule, and all have a probability of 0.92."""
  mask = jnp.zeros(4096).at[:40].set(1).reshape(1, 64, 64, 1)
  logits = jnp.full(mask.shape, jnp.log(0.92 / 0.08))

  def background_gradient(loss):
    gradient = jax.grad(lambda x: loss(x)[0])(logits)
    return float(gradient[0, 63, 63, 0])

  dice = background_gradient(
    lambda x: losses.dice_loss(jax.nn.sigmoid(x), mask)
  )
  # The gradient is 2 I / (S + G)^2 * p (1 - p), where I = 40 * 0.92 is the
  # overlap, and S + G = 4096 * 0.92 + 40 the sum of prediction and mask.
  overlap, total = 40 * 0.92, 4096 * 0.92 + 40
  np.testing.assert_allclose(
    dice, 2 * overlap / total**2 * 0.92 * 0.08, rtol=1e-4
  )
  entropy = background_gradient(lambda x: losses.pixel_cross_entropy(x, mask))
  np.testing.assert_allclose(entropy, 0.92 / 4096, rtol=1e-5)
  assert entropy > 500 * dice
