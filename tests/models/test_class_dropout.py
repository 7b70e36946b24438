"""Dropout of Class-net, which the paper does not have."""

import functools

import jax
import jax.numpy as jnp
import made_run
import numpy as np

from mtnet_jax.models import mtnet

_IMAGES = jnp.asarray(
  np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)), jnp.float32
)
_MASK = jnp.ones((4, 32, 32, 1))


def _net(rate):
  return mtnet.ClassNet(**made_run.TINY['class_net'], dropout_rate=rate)


@functools.partial(jax.jit, static_argnums=0)
def _logits(net, variables, seed=None):
  """Returns logits in training if there is a seed, otherwise in evaluation."""
  if seed is None:
    return net.apply(variables, _IMAGES, _MASK, train=False)[0]
  (logits, _), _ = net.apply(
    variables,
    _IMAGES,
    _MASK,
    train=True,
    rngs={'dropout': jax.random.key(seed)},
    mutable=['batch_stats'],
  )
  return logits


def test_whole_channels_are_dropped_in_training_only():
  plain, net = _net(0.0), _net(0.5)
  variables = net.init(jax.random.key(0), _IMAGES, _MASK, train=False)
  # Dropout has no variables.
  shapes = plain.init(jax.random.key(0), _IMAGES, _MASK, train=False)
  assert jax.tree.structure(variables) == jax.tree.structure(shapes)
  np.testing.assert_array_equal(
    _logits(net, variables), _logits(plain, variables)
  )
  first, again, other = (_logits(net, variables, x) for x in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)
  # Kept channels count twice, so that the expected logit does not change. Over
  # 400 draws, the mean is within a few standard errors of it.
  draws = np.stack([_logits(net, variables, x) for x in range(400)])
  expected = _logits(plain, variables, 0)
  error = draws.std(0) / np.sqrt(len(draws))
  np.testing.assert_array_less(np.abs(draws.mean(0) - expected), 5 * error)
