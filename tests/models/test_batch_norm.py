"""Our batch norm agrees with Flax's, and its gradients with JAX's."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.models import batch_norm

_CHANNELS = 5


def _norm(cls, *, train=True, axis_name=None, dtype=jnp.float32):
  return cls(
    use_running_average=not train,
    axis_name=axis_name,
    epsilon=1e-3,
    momentum=0.8,
    dtype=dtype,
  )


@pytest.fixture(scope='module', name='variables')
def _variables():
  rng = np.random.default_rng(0)

  def draw(low, high):
    return jnp.asarray(rng.uniform(low, high, _CHANNELS), jnp.float32)

  return {
    'params': {'scale': draw(0.7, 1.4), 'bias': draw(-0.3, 0.3)},
    'batch_stats': {'mean': draw(-1, 1), 'var': draw(0.5, 2)},
  }


def _draw(shape, seed):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(0.5, 2, shape), jnp.float32)


def _everything(norm, variables, x, weights):
  """Output, new statistics, and gradients of the parameters and the input."""

  def outputs(params, x):
    return norm.apply(
      {**variables, 'params': params}, x, mutable=['batch_stats']
    )

  def weighted(params, x):
    return jnp.sum(outputs(params, x)[0].astype(jnp.float32) * weights)

  grads = jax.grad(weighted, argnums=(0, 1))(variables['params'], x)
  return outputs(variables['params'], x), grads


@pytest.mark.parametrize('train', (False, True))
@pytest.mark.parametrize('shape', ((4, 6, 7, _CHANNELS), (3, 1, 1, _CHANNELS)))
def test_flax(variables, shape, train):
  x, weights = _draw(shape, 1), _draw(shape, 2)
  ours, theirs = (
    _everything(_norm(cls, train=train), variables, x, weights)
    for cls in (batch_norm.BatchNorm, nn.BatchNorm)
  )
  for one, other in zip(
    jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_variables_are_flax_s():
  x = jnp.ones((2, 3, 3, _CHANNELS))
  ours, theirs = (
    _norm(cls).init(jax.random.key(0), x)
    for cls in (batch_norm.BatchNorm, nn.BatchNorm)
  )
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_synchronised_is_one_batch(variables):
  # Four devices with two examples each act like one with eight.
  shape = (4, 2, 3, 3, _CHANNELS)
  x, weights = _draw(shape, 1), _draw(shape, 2)
  whole = (8, *shape[2:])
  norm = _norm(batch_norm.BatchNorm, axis_name='devices')
  (y, updates), (grad_params, grad_x) = jax.vmap(
    lambda x, weights: _everything(norm, variables, x, weights),
    axis_name='devices',
  )(x, weights)
  (whole_y, whole_updates), (whole_params, whole_x) = _everything(
    _norm(batch_norm.BatchNorm),
    variables,
    x.reshape(whole),
    weights.reshape(whole),
  )
  close = {'rtol': 1e-4, 'atol': 1e-5}
  np.testing.assert_allclose(y.reshape(whole), whole_y, **close)
  np.testing.assert_allclose(grad_x.reshape(whole), whole_x, **close)
  for name, value in whole_params.items():
    np.testing.assert_allclose(grad_params[name].sum(0), value, **close)
  for name, value in whole_updates['batch_stats'].items():
    for one in updates['batch_stats'][name]:
      np.testing.assert_allclose(one, value, **close)


def test_bfloat16_keeps_its_sums_in_float32(variables):
  # A bfloat16 sum of a thousand pixels around 16 would stop growing.
  x = (_draw((4, 16, 16, _CHANNELS), 1) + 16).astype(jnp.bfloat16)
  y, updates = _norm(batch_norm.BatchNorm, dtype=jnp.bfloat16).apply(
    variables, x, mutable=['batch_stats']
  )
  assert y.dtype == jnp.bfloat16
  mean = np.asarray(x, np.float64).mean((0, 1, 2))
  np.testing.assert_allclose(
    updates['batch_stats']['mean'],
    0.8 * variables['batch_stats']['mean'] + 0.2 * mean,
    rtol=1e-5,
  )
