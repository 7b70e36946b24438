"""Convolutions with what follows them in evaluation folded in, on CPUs.

A batch norm of fixed statistics is a scale and a shift per channel. The loops
of `native` apply them, and ReLUs, to sums that they have in registers: an array
is written and read once, and not once per operation. Of two convolutions in a
row, a depthwise and a pointwise one, what lies between stays in the cache.

Gradients are those of the operations one by one. All of this is for arrays that
`library.supports`.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.ops import common
from mtnet_jax.ops import depthwise as depthwise_lib
from mtnet_jax.ops import few_channels
from mtnet_jax.ops import pointwise as pointwise_lib
from mtnet_jax.ops.native import library


def identity(channels):
  """The `Affine` that changes nothing."""
  return common.Affine(
    jnp.ones(channels, jnp.float32), jnp.zeros(channels, jnp.float32)
  )


def few_channels_conv(x, kernel, after, *, stride, pad):
  """Plain 3 x 3 convolution, affine, ReLU.

  Args:
    x: (B, H, W, C) float32.
    kernel: (3, 3, C, F).
    after: `Affine` of the F features.
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
  x,
  depthwise,
  between,
  pointwise,
  after,
  *,
  stride=1,
  dilation=1,
  relu_before=False,
  relu_between=False,
  relu_after=False,
):
  """Depthwise 3 x 3 convolution, affine, pointwise convolution, affine.

  Args:
    x: (B, H, W, C) float32.
    depthwise: kernel (3, 3, 1, C).
    between: `Affine` of the C channels.
    pointwise: kernel (1, 1, C, F).
    after: `Affine` of the F features.
    stride, dilation: of the depthwise convolution; a stride of 2 goes with a
      dilation of 1.
    relu_before, relu_between, relu_after: where a ReLU is: of x, after the
      first affine, after the second.

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


def _with_gradient_of(plain, native, *arguments):
  """native(*arguments), differentiated as plain(*arguments)."""

  @jax.custom_vjp
  def function(*arguments):
    return native(*arguments)

  function.defvjp(
    lambda *arguments: jax.vjp(plain, *arguments),
    lambda vjp, grad: vjp(grad),
  )
  return function(*arguments)
