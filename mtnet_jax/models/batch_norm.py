"""Batch norm with a hand-written gradient.

When JAX differentiates `nn.BatchNorm`, the backward pass reads the activations
once for each operation between the input and its statistics, and stores an
intermediate result for most of them. The closed form of the gradient (Ioffe &
Szegedy, 2015) needs only the input, in two passes: one computes two sums, the
other the result.

Values, variable names and synchronisation over devices are those of
`nn.BatchNorm`.
"""

import functools
import operator

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from mtnet_jax.ops import common
from mtnet_jax.ops import target
from mtnet_jax.ops.native import library

_PIXELS = (0, 1, 2)


def _mean_over_devices(values, axis_name):
  return values if axis_name is None else lax.pmean(values, axis_name)


def _moments(x):
  """Sums of x and of its square over this device's pixels: (C,) each."""
  if library.supports('moments', x):
    return library.call('moments', [x.shape[-1:]] * 2, x)
  wide = common.wide(x)
  return pixel_sums(wide, wide * wide)


def _gradient_sums(grad, x, mean):
  """Sums of grad and of grad * (x - mean) over this device's pixels."""
  if library.supports('gradient_sums', grad, x, mean):
    return library.call('gradient_sums', [mean.shape] * 2, grad, x, mean)
  grad, centred = common.wide(grad), common.wide(x) - common.per_channel(mean)
  return pixel_sums(grad, grad * centred)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  epsilon: float,
  axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises a batch by its own statistics.

  Args:
    x: (B, H, W, C).
    scale: (C,).
    bias: (C,).
    epsilon: added to the variance.
    axis_name: axis over which the statistics are averaged, or None.

  Returns:
    The normalised batch (B, H, W, C), of x's type; its mean and variance (C,),
    float32 or wider. The statistics have no gradient.
  """
  return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(x, scale, bias, epsilon, axis_name):
  count = x.size // x.shape[-1]
  mean, square = _mean_over_devices(
    tuple(total / count for total in _moments(x)), axis_name
  )
  # Rounding can make the difference negative.
  var = jnp.maximum(square - mean * mean, 0)
  inverse = lax.rsqrt(var + epsilon)
  y = common.wide(x) - common.per_channel(mean)
  y = y * common.per_channel(inverse * scale) + common.per_channel(bias)
  return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _backward(epsilon, axis_name, residuals, grads):
  del epsilon
  x, scale, mean, inverse = residuals
  # Not averaged over devices here: the training step averages all gradients of
  # parameters.
  grad_bias, products = _gradient_sums(grads[0], x, mean)
  grad_scale = products * inverse
  count = x.size // x.shape[-1]
  means = _mean_over_devices((grad_bias / count, grad_scale / count), axis_name)
  grad = common.wide(grads[0])
  centred = common.wide(x) - common.per_channel(mean)
  # With g the output gradient, s the standard deviation and n = (x - mean) / s:
  # the gradient of x is scale / s * (g - mean(g) - n * mean(g * n)).
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
    use_running_average: whether to normalise by the running statistics instead
      of the batch's.
    axis_name: axis over which batch statistics are averaged, or None.
    epsilon: added to the variance.
    momentum: weight of the old value in an update of the running statistics.
    dtype: type of the output; parameters and statistics are float32.
  """

  use_running_average: bool
  axis_name: str | None
  epsilon: float
  momentum: float
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def _variables(self, channels):
    shape = (channels,)
    average = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    variance = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', nn.initializers.ones_init(), shape)
    bias = self.param('bias', nn.initializers.zeros_init(), shape)
    return average, variance, scale, bias

  def _factor(self, variance, scale):
    # Widened because variables may be stored in a shorter type, in which XLA
    # may or may not round the intermediate results.
    return lax.rsqrt(common.wide(variance.value) + self.epsilon) * common.wide(
      scale
    )

  def folded(self, channels: int) -> common.Affine:
    """Returns the scale and shift of normalising by the running statistics.

    Args:
      channels: number of channels of the input.
    """
    average, variance, scale, bias = self._variables(channels)
    factor = self._factor(variance, scale)
    shift = common.wide(bias) - common.wide(average.value) * factor
    # Always float32, regardless of the type that the variables are stored in.
    return common.Affine(factor.astype(jnp.float32), shift.astype(jnp.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises (B, H, W, C); updates the statistics in training."""
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


def pixel_sums(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Sums two arrays over (B, H, W).

  XLA's CPU backend generates fast loops only for a reduction of one array. Its
  GPU backend reads the input once for one reduction of two arrays, and twice
  for two reductions. (For a reduction of three arrays it first writes the terms
  to memory.)

  Args:
    one: (B, H, W, C).
    other: (B, H, W, C), of the same type.

  Returns:
    Two arrays (C,).
  """
  if target.is_this_cpu():
    return separate_sums(one, other)
  return lax.platform_dependent(
    one, other, cpu=separate_sums, default=joint_sums
  )


def separate_sums(
  one: jax.Array, other: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Computes `pixel_sums` as two reductions, for CPUs."""
  return jnp.sum(one, _PIXELS), jnp.sum(other, _PIXELS)


def joint_sums(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Computes `pixel_sums` as one reduction, for accelerators."""
  zero = jnp.zeros((), one.dtype)

  def add(left, right):
    return tuple(map(operator.add, left, right))

  return tuple(lax.reduce((one, other), (zero, zero), add, _PIXELS))
