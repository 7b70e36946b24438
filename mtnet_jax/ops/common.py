"""The same function in several forms, one of which fits the platform.

The choice is made where the program is lowered, not where it is traced, so that
one exported program serves several platforms.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
from jax import lax


class Forms(NamedTuple):
  """The same (x, kernel) -> y, as CPUs and as others like it."""

  cpu: Callable[..., jax.Array]
  other: Callable[..., jax.Array]


# The gradient is stated by hand because differentiating through the choice
# would keep residuals of every platform.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def choose(x, kernel, forms):
  """The form of this platform, of x and kernel."""
  return lax.platform_dependent(x, kernel, cpu=forms.cpu, default=forms.other)


def _forward(x, kernel, forms):
  return choose(x, kernel, forms), (x, kernel)


def _backward(forms, residuals, grad):
  x, kernel = residuals

  def gradients_of(form):
    return lambda x, kernel, grad: jax.vjp(form, x, kernel)[1](grad)

  return lax.platform_dependent(
    x,
    kernel,
    grad,
    cpu=gradients_of(forms.cpu),
    default=gradients_of(forms.other),
  )


choose.defvjp(_forward, _backward)
