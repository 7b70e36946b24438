"""The type that sums are kept in."""

import jax.numpy as jnp


def wide(x):
  """x in the type of sums: float32, or wider if x is."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
