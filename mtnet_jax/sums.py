"""Two sums over the pixels of a batch, in one pass where that pays."""

import operator

from jax import lax
import jax.numpy as jnp

from mtnet_jax.native import library

_PIXELS = (0, 1, 2)


def over_pixels(one, other):
  """Sums over (B, H, W).

  XLA's CPU backend makes fast loops of single sums only. Its GPU backend makes
  one pass of a reduction of both, and two of two reductions. (Of a reduction of
  three it writes the terms out first.)

  Args:
    one, other: (B, H, W, C), of one type.

  Returns:
    Two (C,).
  """
  if library.for_this_cpu():
    return one_by_one(one, other)
  return lax.platform_dependent(one, other, cpu=one_by_one, default=together)


def one_by_one(one, other):
  """`over_pixels` as CPUs have it."""
  return jnp.sum(one, _PIXELS), jnp.sum(other, _PIXELS)


def together(one, other):
  """`over_pixels` as others have it."""
  zero = jnp.zeros((), one.dtype)

  def add(left, right):
    return tuple(map(operator.add, left, right))

  return tuple(lax.reduce((one, other), (zero, zero), add, _PIXELS))
