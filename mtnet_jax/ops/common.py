"""What several convolutions share, and functions in a form for each platform.

The choice is made where the program is lowered, not where it is traced, so that
one exported program serves several platforms.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


class Forms(NamedTuple):
  """The same (x, kernel) -> y, as each platform likes it.

  Attributes:
    cpu: for CPUs.
    other: for all that have no form of their own.
    cuda: for NVIDIA's GPUs, or None.
  """

  cpu: Callable[..., jax.Array]
  other: Callable[..., jax.Array]
  cuda: Callable[..., jax.Array] | None = None

  def by_platform(self, change=lambda form: form):
    """Keyword arguments of `lax.platform_dependent`.

    Args:
      change: of every form.
    """
    found = {'cpu': change(self.cpu), 'default': change(self.other)}
    if self.cuda is not None:
      found['cuda'] = change(self.cuda)
    return found


# The gradient is stated by hand because differentiating through the choice
# would keep residuals of every platform.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def choose(x, kernel, forms):
  """The form of this platform, of x and kernel."""
  return lax.platform_dependent(x, kernel, **forms.by_platform())


def _forward(x, kernel, forms):
  return choose(x, kernel, forms), (x, kernel)


def _backward(forms, residuals, grad):
  x, kernel = residuals

  def gradients_of(form):
    return lambda x, kernel, grad: jax.vjp(form, x, kernel)[1](grad)

  return lax.platform_dependent(
    x, kernel, grad, **forms.by_platform(gradients_of)
  )


choose.defvjp(_forward, _backward)


def wide(x):
  """x in the type of sums: float32, or wider if x is."""
  return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def per_channel(values):
  """(C,) as (1, 1, 1, C), which meets (B, H, W, C).

  JAX does so by itself, unless its user forbids (`jax_numpy_rank_promotion`).
  """
  return values[None, None, None]


def pad(x, rows, columns, value=0):
  """Pads the rows and columns.

  Args:
    x: (B, H, W, C).
    rows, columns: (before, after, between) each, as `lax.pad` has them.
    value: what is put there.
  """
  return lax.pad(
    x, jnp.array(value, x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0))
  )


def shifted_views(padded, size, out_hw, *, stride=1, dilation=1):
  """The size * size views of a padded input that meet each tap, row by row."""
  height, width = out_hw
  for i in range(size):
    for j in range(size):
      top, left = i * dilation, j * dilation
      yield padded[
        :,
        top : top + (height - 1) * stride + 1 : stride,
        left : left + (width - 1) * stride + 1 : stride,
      ]


def xla_conv(x, kernel, *, stride=1, dilation=1, pad):
  """Convolution as XLA lowers it.

  Args:
    x: (B, H, W, C).
    kernel: (k, k, C, F).
    stride: step between output pixels.
    dilation: step between taps.
    pad: pixels of zeros on each side.

  Returns:
    (B, H', W', F).
  """
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=_DIMENSIONS,
  )


class Affine(NamedTuple):
  """What a batch norm of fixed statistics does: x * scale + shift.

  Attributes:
    scale, shift: (C,) float32.
  """

  scale: jax.Array
  shift: jax.Array

  def __call__(self, x):
    return x * self.scale + self.shift
