"""Batch norm with its gradient stated by hand.

`nn.BatchNorm` differentiated by JAX goes over the activations once for each
step of the chain from the statistics back to the input, and keeps what the
steps need. The gradient in closed form (Ioffe & Szegedy, 2015) needs the input
alone, one pass for two sums, and one for the result.

Same values, same names of variables, same synchronisation over devices.
"""

import functools
import operator
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from mtnet_jax.ops import common
from mtnet_jax.ops import target
from mtnet_jax.ops.native import library

_PIXELS = (0, 1, 2)


def _over_devices(means, axis_name):
  return means if axis_name is None else lax.pmean(means, axis_name)


def _moments(x):
  """Sums over this device's pixels of x and of its square: (C,) each."""
  if library.supports('moments', x):
    return library.call('moments', [x.shape[-1:]] * 2, x)
  wide = common.wide(x)
  return over_pixels(wide, wide * wide)


def _gradient_sums(grad, x, mean):
  """Sums over this device's pixels of grad and of grad * (x - mean)."""
  if library.supports('gradient_sums', grad, x, mean):
    return library.call('gradient_sums', [mean.shape] * 2, grad, x, mean)
  grad, centred = common.wide(grad), common.wide(x) - common.per_channel(mean)
  return over_pixels(grad, grad * centred)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(x, scale, bias, epsilon, axis_name):
  """Normalises by the statistics of the batch.

  Args:
    x: (B, H, W, C).
    scale, bias: (C,).
    epsilon: added to the variance.
    axis_name: axis over which the statistics are averaged, or None.

  Returns:
    (B, H, W, C) of x's type; mean and variance (C,), float32 or wider. No
    gradient passes the statistics.
  """
  return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(x, scale, bias, epsilon, axis_name):
  count = x.size // x.shape[-1]
  mean, square = _over_devices(
    tuple(total / count for total in _moments(x)), axis_name
  )
  # May fall below 0 by rounding.
  var = jnp.maximum(square - mean * mean, 0)
  inverse = lax.rsqrt(var + epsilon)
  y = common.wide(x) - common.per_channel(mean)
  y = y * common.per_channel(inverse * scale) + common.per_channel(bias)
  return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _backward(epsilon, axis_name, residuals, grads):
  del epsilon
  x, scale, mean, inverse = residuals
  # These stay this device's own: gradients of parameters are averaged later.
  grad_bias, products = _gradient_sums(grads[0], x, mean)
  grad_scale = products * inverse
  count = x.size // x.shape[-1]
  means = _over_devices((grad_bias / count, grad_scale / count), axis_name)
  grad = common.wide(grads[0])
  centred = common.wide(x) - common.per_channel(mean)
  # d/dx = scale / s (g - mean(g) - n mean(g n)), n the normalised x.
  grad_x = common.per_channel(inverse * scale) * (
    grad
    - common.per_channel(means[0])
    - centred * common.per_channel(inverse * means[1])
  )
  return (
    grad_x.astype(x.dtype),
    grad_scale.astype(scale.dtype),
    grad_bias.astype(scale.dtype),
  )


normalise.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
  """Batch norm over (B, H, W), per channel.

  Attributes:
    use_running_average: normalise by the running statistics.
    axis_name: axis over which batch statistics are averaged, or None.
    epsilon: added to the variance.
    momentum: the share of the old average that is kept.
    dtype: of the output; parameters and statistics are float32.
  """

  use_running_average: bool
  axis_name: str | None
  epsilon: float
  momentum: float
  dtype: Any = jnp.float32

  @nn.compact
  def _variables(self, channels):
    shape = (channels,)
    average = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    variance = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', nn.initializers.ones_init(), shape)
    bias = self.param('bias', nn.initializers.zeros_init(), shape)
    return average, variance, scale, bias

  def _factor(self, variance, scale):
    # Variables may be kept in a shorter type, and XLA need not round to it.
    return lax.rsqrt(common.wide(variance.value) + self.epsilon) * common.wide(
      scale
    )

  def folded(self, channels):
    """The `common.Affine` that its running statistics make of it."""
    average, variance, scale, bias = self._variables(channels)
    factor = self._factor(variance, scale)
    shift = common.wide(bias) - common.wide(average.value) * factor
    # Float32, regardless of the type that variables are kept in.
    return common.Affine(factor.astype(jnp.float32), shift.astype(jnp.float32))

  def __call__(self, x):
    average, variance, scale, bias = self._variables(x.shape[-1])
    x = x.astype(self.dtype)
    if self.use_running_average:
      factor = common.per_channel(self._factor(variance, scale))
      y = common.wide(x) - common.per_channel(common.wide(average.value))
      y = y * factor + common.per_channel(common.wide(bias))
      return y.astype(self.dtype)
    y, mean, var = normalise(x, scale, bias, self.epsilon, self.axis_name)
    if not self.is_initializing():
      for old, new in ((average, mean), (variance, var)):
        old.value = self.momentum * old.value + (1 - self.momentum) * new
    return y


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
  if target.is_this_cpu():
    return one_by_one(one, other)
  return lax.platform_dependent(one, other, cpu=one_by_one, default=together)


def one_by_one(one, other):
  """`over_pixels` on CPUs."""
  return jnp.sum(one, _PIXELS), jnp.sum(other, _PIXELS)


def together(one, other):
  """`over_pixels` elsewhere."""
  zero = jnp.zeros((), one.dtype)

  def add(left, right):
    return tuple(map(operator.add, left, right))

  return tuple(lax.reduce((one, other), (zero, zero), add, _PIXELS))
