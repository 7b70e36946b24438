"""Convolutions fused with batch norms and ReLUs, for evaluation on CPUs.

In evaluation, a batch norm is a fixed scale and shift per channel. The C++
loops of `native` apply it, and a ReLU, while the sums are still in registers,
so that memory is written and read once for all of these operations. A depthwise
and the following pointwise convolution are one loop, and the values between
them stay in the cache.

Gradients are those of the separate operations. Callers check that
`library.supports` the arrays.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.ops import common
from mtnet_jax.ops import depthwise as depthwise_lib
from mtnet_jax.ops import few_channels
from mtnet_jax.ops import pointwise as pointwise_lib
from mtnet_jax.ops.native import library


def identity(channels: int) -> common.Affine:
  """Returns the `Affine` that changes nothing."""
  return common.Affine(
    jnp.ones(channels, jnp.float32), jnp.zeros(channels, jnp.float32)
  )


def few_channels_conv(
  x: jax.Array,
  kernel: jax.Array,
  after: common.Affine,
  *,
  stride: int,
  pad: int,
) -> jax.Array:
  """Computes a 3 x 3 convolution, a scale and shift, and a ReLU.

  Args:
    x: (B, H, W, C) float32.
    kernel: (3, 3, C, F).
    after: scale and shift of the F features.
    stride: step between output pixels.
    pad: pixels of zeros on each side, 0 to 2.

  Returns:
    (B, H', W', F).
  """

  def plain(x, kernel, after):
    return nn.relu(after(few_channels.conv(x, kernel, stride, pad)))

  def native(x, kernel, after):
    return few_channels.native(
      x, kernel, *after, stride=stride, pad=pad, relu=True
    )

  return _with_gradient_of(plain, native, x, kernel, after)


def separable_conv(
  x: jax.Array,
  depthwise: jax.Array,
  between: common.Affine,
  pointwise: jax.Array,
  after: common.Affine,
  *,
  stride: int = 1,
  dilation: int = 1,
  relu_before: bool = False,
  relu_between: bool = False,
  relu_after: bool = False,
) -> jax.Array:
  """Computes a depthwise 3 x 3 and a pointwise convolution.

  Each is followed by a scale and shift.

  Args:
    x: (B, H, W, C) float32.
    depthwise: kernel (3, 3, 1, C).
    between: scale and shift of the C channels after the depthwise convolution.
    pointwise: kernel (1, 1, C, F).
    after: scale and shift of the F features after the pointwise convolution.
    stride: of the depthwise convolution, 1 or 2.
    dilation: of the depthwise convolution; 1 if the stride is 2.
    relu_before: whether a ReLU is applied to x.
    relu_between: whether a ReLU is applied to the result of `between`.
    relu_after: whether a ReLU is applied to the result of `after`.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), F).
  """

  def plain(x, depthwise, between, pointwise, after):
    x = nn.relu(x) if relu_before else x
    x = between(depthwise_lib.conv(x, depthwise, stride, dilation))
    x = nn.relu(x) if relu_between else x
    x = after(pointwise_lib.conv(x, pointwise))
    return nn.relu(x) if relu_after else x

  def native(x, depthwise, between, pointwise, after):
    height, width = (-(-length // stride) for length in x.shape[1:3])
    (out,) = library.call(
      'separable',
      [(len(x), height, width, pointwise.shape[-1])],
      x,
      depthwise * common.per_channel(between.scale),
      between.shift,
      pointwise,
      *after,
      stride=stride,
      dilation=dilation,
      relu_before=relu_before,
      relu_between=relu_between,
      relu_after=relu_after,
    )
    return out

  return _with_gradient_of(
    plain, native, x, depthwise, between, pointwise, after
  )


def _with_gradient_of(
  plain: Callable[..., jax.Array],
  native: Callable[..., jax.Array],
  *arguments: Any,
) -> jax.Array:
  """Returns native(*arguments), with the gradient of plain(*arguments)."""

  @jax.custom_vjp
  def function(*arguments):
    return native(*arguments)

  function.defvjp(
    lambda *arguments: jax.vjp(plain, *arguments),
    lambda vjp, grad: vjp(grad),
  )
  return function(*arguments)
