"""What a traced program does."""

from jax import extend


def products(jaxpr):
  """Every product in a program, those of inner programs included."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield equation
    for inner in extend.core.jaxprs_in_params(equation.params):
      yield from products(inner)
