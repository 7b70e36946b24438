"""The optimizer; learning rates are read off Adam's steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtnet_jax.system import errors
from mtnet_jax.training import optim


def _steps(tx, gradients):
  """Returns what each gradient adds to the parameter."""
  state = tx.init(jnp.zeros(()))
  updates = []
  for gradient in gradients:
    update, state = tx.update(jnp.float32(gradient), state)
    updates.append(float(update))
  return updates


def test_constant_rate():
  # With a constant gradient, Adam's moments cancel: a step is as large as the
  # rate, for a gradient of any size.
  tx = optim.make_optimizer(
    learning_rate=1e-4, schedule='constant', total_steps=3
  )
  np.testing.assert_allclose(_steps(tx, [5.0] * 6), [-1e-4] * 6, rtol=1e-4)


def test_it_is_adam():
  # Second step after gradients 1, -1: m = (.9 * .1 - .1) / (1 - .81) =
  # -.0526, v = (.999 * .001 + .001) / (1 - .998001) = 1.
  tx = optim.make_optimizer(
    learning_rate=0.1, schedule='constant', total_steps=2
  )
  np.testing.assert_allclose(
    _steps(tx, [1.0, -1.0]), [-0.1, 0.1 * 0.01 / 0.19], rtol=1e-4
  )


def test_cosine_rate():
  # 40 steps: 2 of warm-up (0 and half the rate), then a cosine decay over 38.
  tx = optim.make_optimizer(
    learning_rate=0.1, schedule='cosine', total_steps=40
  )
  rates = -np.array(_steps(tx, [1.0] * 41))
  np.testing.assert_allclose(rates[:3], [0, 0.05, 0.1], rtol=1e-4, atol=1e-8)
  cosine = 0.05 * (1 + np.cos(np.pi * np.arange(39) / 38))
  np.testing.assert_allclose(rates[2:], cosine, rtol=1e-3, atol=1e-6)
  assert rates.max() == rates[2]


@pytest.mark.parametrize('total_steps', (1, 2, 3))
def test_cosine_of_very_few_steps(total_steps):
  # A tiny dataset may give a stage one step.
  tx = optim.make_optimizer(
    learning_rate=0.1, schedule='cosine', total_steps=total_steps
  )
  assert np.isfinite(_steps(tx, [1.0] * total_steps)).all()


def test_kernels_decay_and_nothing_else():
  """As in PyTorch's AdamW: rate times decay times the kernel is added."""
  params = {'conv': {'kernel': jnp.full(3, 2.0), 'bias': jnp.full(3, 2.0)}}
  gradients = jax.tree.map(jnp.ones_like, params)
  steps = []
  for weight_decay in (0.0, 0.1):
    tx = optim.make_optimizer(
      learning_rate=0.01,
      schedule='constant',
      total_steps=3,
      weight_decay=weight_decay,
    )
    update, _ = tx.update(gradients, tx.init(params), params)
    steps.append(update['conv'])
  plain, decayed = steps
  np.testing.assert_array_equal(decayed['bias'], plain['bias'])
  np.testing.assert_allclose(
    decayed['kernel'] - plain['kernel'], [-0.01 * 0.1 * 2.0] * 3, rtol=1e-4
  )


def test_parameters_descend():
  tx = optim.make_optimizer(
    learning_rate=0.1, schedule='constant', total_steps=100
  )
  x = jnp.float32(1.0)
  state = tx.init(x)
  for _ in range(60):
    updates, state = tx.update(2 * x, state, x)  # of x ** 2
    x = optax.apply_updates(x, updates)
  assert abs(float(x)) < 0.1


def test_unknown_schedule_is_an_input_error():
  with pytest.raises(errors.InputError, match="'linear'.*'cosine'"):
    optim.make_optimizer(learning_rate=1, schedule='linear', total_steps=1)


@pytest.mark.parametrize('schedule', ('constant', 'cosine'))
@pytest.mark.parametrize('total_steps', (1, 2, 40))
def test_learning_rates_are_those_of_the_steps(schedule, total_steps):
  options = dict(learning_rate=0.1, schedule=schedule, total_steps=total_steps)
  # With a constant gradient, a step of Adam is as large as the rate.
  steps = _steps(optim.make_optimizer(**options), [1.0] * total_steps)
  np.testing.assert_allclose(
    optim.learning_rates(**options), -np.array(steps), rtol=1e-3, atol=1e-6
  )


@pytest.mark.parametrize('schedule', ('constant', 'cosine'))
@pytest.mark.parametrize('weight_decay', (0.0, 0.1))
def test_the_initial_state_is_that_of_init(schedule, weight_decay):
  tx = optim.make_optimizer(
    learning_rate=1e-3,
    schedule=schedule,
    total_steps=40,
    weight_decay=weight_decay,
  )
  params = {'a': jnp.ones((2, 3)), 'b': {'c': jnp.ones(4, jnp.bfloat16)}}
  ours, expected = optim.init_state(tx, params), tx.init(params)
  assert jax.tree.structure(ours) == jax.tree.structure(expected)
  for mine, its in zip(*map(jax.tree.leaves, (ours, expected)), strict=True):
    assert mine.dtype == its.dtype
    np.testing.assert_array_equal(mine, its)
