"""Helpers of several convolutions, and functions with a form per platform.

JAX chooses the form when it lowers a program, not when it traces it, so that
one exported program supports several platforms.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
from typing import Any
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


class Forms(NamedTuple):
  """One function (x, kernel) -> y, in a form for each platform.

  Attributes:
    cpu: the form for CPUs.
    other: the form for platforms without one of their own.
    cuda: the form for NVIDIA GPUs; None if they use `other`.
  """

  cpu: Callable[..., jax.Array]
  other: Callable[..., jax.Array]
  cuda: Callable[..., jax.Array] | None = None

  def by_platform(
    self, change: Callable[..., Any] = lambda form: form
  ) -> dict[str, Callable[..., Any]]:
    """Returns the forms as keyword arguments of `lax.platform_dependent`.

    Args:
      change: function that is applied to every form.
    """
    found = {'cpu': change(self.cpu), 'default': change(self.other)}
    if self.cuda is not None:
      found['cuda'] = change(self.cuda)
    return found


# The gradient is hand-written because JAX would store the residuals of all
# platforms if it differentiated `lax.platform_dependent`.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def choose(x: jax.Array, kernel: jax.Array, forms: Forms) -> jax.Array:
  """Applies the form of the platform that the program is lowered for."""
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


def wide(x: jax.Array) -> jax.Array:
  """Returns x in the type of sums: at least float32."""
  return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def per_channel(values: jax.Array) -> jax.Array:
  """Reshapes (C,) to (1, 1, 1, C), to broadcast with (B, H, W, C).

  JAX does this implicitly, unless the user has forbidden it
  (`jax_numpy_rank_promotion`).
  """
  return values[None, None, None]


def pad(
  x: jax.Array,
  rows: tuple[int, int, int],
  columns: tuple[int, int, int],
  value: float = 0,
) -> jax.Array:
  """Pads rows and columns.

  Args:
    x: (B, H, W, C).
    rows: padding (before, after, between) the rows, as in `lax.pad`.
    columns: padding of the columns, likewise.
    value: the value to pad with.
  """
  return lax.pad(
    x, jnp.array(value, x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0))
  )


def shifted_views(
  padded: jax.Array,
  size: int,
  out_hw: tuple[int, int],
  *,
  stride: int = 1,
  dilation: int = 1,
) -> Iterator[jax.Array]:
  """Yields, for each tap of a kernel, the input pixels that it multiplies.

  Args:
    padded: (B, H, W, C), the padded input.
    size: kernel side.
    out_hw: (H', W') of the output.
    stride: step between output pixels.
    dilation: step between taps.

  Yields:
    (B, H', W', C) for each of the size * size taps, row by row.
  """
  height, width = out_hw
  for i in range(size):
    for j in range(size):
      top, left = i * dilation, j * dilation
      yield padded[
        :,
        top : top + (height - 1) * stride + 1 : stride,
        left : left + (width - 1) * stride + 1 : stride,
      ]


def xla_conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  dilation: int = 1,
  pad: int,
) -> jax.Array:
  """Computes a convolution with XLA's own operation.

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
  """A batch norm with fixed statistics: x * scale + shift.

  Attributes:
    scale: (C,) float32.
    shift: (C,) float32.
  """

  scale: jax.Array
  shift: jax.Array

  def __call__(self, x: jax.Array) -> jax.Array:
    """Scales and shifts (..., C)."""
    return x * self.scale + self.shift
