"""The optimizer (paper, section 3.2.5: Adam, "initial" rate 1e-4)."""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import numpy as np
import optax

from mtnet_jax.system import errors


# Cached, so that runs with the same optimizer share their compiled steps.
@functools.lru_cache(maxsize=16)
def make_optimizer(
  *,
  learning_rate: float,
  schedule: str,
  total_steps: int,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """Returns Adam with a learning-rate schedule, or AdamW.

  Args:
    learning_rate: the highest rate.
    schedule: 'constant', or 'cosine': a linear warm-up over 5 % of the steps,
      then a cosine decay to zero.
    total_steps: steps of the whole stage.
    weight_decay: decoupled decay of the kernels, as a multiple of the learning
      rate (Loshchilov & Hutter, 2019); 0 for plain Adam.

  Raises:
    errors.InputError: the schedule is unknown.
  """
  # A constant rate is passed as a number: a schedule would add a step count to
  # the state of the optimizer, and so to every checkpoint.
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
def learning_rates(
  *, learning_rate: float, schedule: str, total_steps: int
) -> np.ndarray:
  """Returns the learning rate of every step of a stage.

  Args:
    learning_rate: as in `make_optimizer`.
    schedule: as in `make_optimizer`.
    total_steps: as in `make_optimizer`.

  Returns:
    (total_steps,) float32, read-only.
  """
  schedule_fn = _schedule(learning_rate, schedule, total_steps)
  # Without jit, each operation of the schedule would be compiled by itself.
  return np.broadcast_to(
    np.asarray(jax.jit(schedule_fn)(np.arange(total_steps)), np.float32),
    (total_steps,),
  )


def _schedule(learning_rate, schedule, total_steps):
  """Returns a function from the step, counted from 0, to the rate.

  Raises:
    errors.InputError: the schedule is unknown.
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
    f"schedule {schedule!r} is unknown: use 'constant' or 'cosine'."
  )


def _kernels(params):
  """Masks the leaves that decay: kernels, but not biases or batch norms."""
  return jax.tree.map_with_path(
    lambda path, _: path[-1].key == 'kernel', params
  )


def init_state(
  tx: optax.GradientTransformation, params: Mapping[str, Any]
) -> optax.OptState:
  """Returns `tx.init(params)` as NumPy arrays, without compiling anything.

  All moments of Adam start at zero (Kingma & Ba, 2015, algorithm 1). JAX would
  compile and run a program for each of them.

  Args:
    tx: a transformation of `make_optimizer`.
    params: the network's parameters.
  """
  shapes = jax.eval_shape(tx.init, params)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
