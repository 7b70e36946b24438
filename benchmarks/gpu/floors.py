"""Measures the copy bandwidth and matrix product throughput of a card.

Measured limits are a better reference for other times than those of a data
sheet.
"""

import statistics
import time

import jax
import jax.numpy as jnp

_CALLS = 10
_ROUNDS = 5


class Floors:
  """A compiled copy and a compiled matrix product; a contestant of `turns`.

  Args:
    gib: size of the copied array in GiB.
    side: side of the two square matrices.
  """

  def __init__(self, *, gib, side):
    self._array = jax.jit(
      lambda key: jax.random.uniform(key, (int(gib * 2**28),))
    )(jax.random.key(0))
    self._matrices = tuple(
      jax.jit(lambda key: jax.random.normal(key, (side, side), jnp.bfloat16))(
        jax.random.key(seed)
      )
      for seed in range(2)
    )
    self._side = side
    self._copy = jax.jit(lambda x: x + 1).lower(self._array).compile()
    self._product = jax.jit(jnp.matmul).lower(*self._matrices).compile()

  def __call__(self):
    """Runs both once."""
    return self._copy(self._array), self._product(*self._matrices)

  def figures(self):
    """Measures the limits of the card.

    Returns:
      copy_gb_s, bytes read and written; product_tflop_s, in bfloat16.
    """
    moved = 2 * self._array.nbytes
    return {
      'copy_gb_s': moved / _seconds(self._copy, self._array) / 1e9,
      'product_tflop_s': 2
      * self._side**3
      / _seconds(self._product, *self._matrices)
      / 1e12,
    }


def _seconds(function, *arguments):
  """Returns the seconds of a call: the median of rounds, after a warm-up."""
  seconds = []
  for _ in range(_ROUNDS + 1):
    start = time.perf_counter()
    for _ in range(_CALLS):
      result = function(*arguments)
    jax.block_until_ready(result)
    seconds.append((time.perf_counter() - start) / _CALLS)
  return statistics.median(seconds[1:])
