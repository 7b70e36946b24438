"""The optimizer (paper, section 3.2.5: Adam, "initial" rate 1e-4)."""

import functools

import jax
import numpy as np
import optax

from mtnet_jax.system import errors


# Cached, so that runs with the same optimizer share their compiled steps.
@functools.lru_cache(maxsize=16)
def make_optimizer(*, learning_rate, schedule, total_steps, weight_decay=0.0):
  """Adam under a learning-rate schedule, with decoupled weight decay or none.

  Args:
    learning_rate: the highest rate.
    schedule: 'constant', or 'cosine': a short linear warm-up (5 % of the
      steps), then half a cosine down to zero.
    total_steps: of the whole stage.
    weight_decay: of the kernels, as a multiple of the learning rate (Loshchilov
      & Hutter, 2019); 0 is Adam.

  Returns:
    An optax transformation.

  Raises:
    errors.InputError: an unknown schedule.
  """
  # A constant rate is a number: a schedule would add a count to the state of
  # the optimizer, and so to every checkpoint.
  rate = (
    learning_rate
    if schedule == 'constant'
    else _schedule(learning_rate, schedule, total_steps)
  )
  if weight_decay:
    return optax.adamw(rate, weight_decay=weight_decay, mask=_kernels)
  return optax.adam(rate)


# Cached, so that runs with the same schedule compile it once.
@functools.lru_cache(maxsize=64)
def learning_rates(*, learning_rate, schedule, total_steps):
  """The rate of every step of a stage.

  Args:
    learning_rate, schedule, total_steps: as of `make_optimizer`.

  Returns:
    (total_steps,) float32, in NumPy, read-only.
  """
  schedule_fn = _schedule(learning_rate, schedule, total_steps)
  # Compiled once: as single operations each would be a program of its own.
  return np.broadcast_to(
    np.asarray(jax.jit(schedule_fn)(np.arange(total_steps)), np.float32),
    (total_steps,),
  )


def _schedule(learning_rate, schedule, total_steps):
  """Step, from 0, -> rate.

  Raises:
    errors.InputError: an unknown schedule.
  """
  if schedule == 'constant':
    return optax.constant_schedule(learning_rate)
  if schedule == 'cosine':
    return optax.warmup_cosine_decay_schedule(
      init_value=0.0,
      peak_value=learning_rate,
      warmup_steps=min(max(1, total_steps // 20), total_steps - 1),
      decay_steps=total_steps,
    )
  raise errors.InputError(
    f"schedule {schedule!r} is unknown: take 'constant' or 'cosine'."
  )


def _kernels(params):
  """Which leaves decay: kernels, but no bias and nothing of a batch norm."""
  return jax.tree.map_with_path(
    lambda path, _: path[-1].key == 'kernel', params
  )


def init_state(tx, params):
  """`tx.init(params)` of a transformation of `make_optimizer`, in NumPy.

  Adam begins with zeros (Kingma & Ba, 2015, algorithm 1). JAX would compile and
  run a program for each of them.
  """
  shapes = jax.eval_shape(tx.init, params)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
