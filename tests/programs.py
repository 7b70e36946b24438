"""Searches traced programs for operations."""

from jax import extend


def products(jaxpr):
  """Yields all matrix products and convolutions, also of inner programs."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield equation
    for inner in extend.core.jaxprs_in_params(equation.params):
      yield from products(inner)
