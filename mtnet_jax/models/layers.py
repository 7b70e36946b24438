"""Convolution layers on `ops`, and the choices all networks make once."""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from mtnet_jax import ops
from mtnet_jax.models import batch_norm as batch_norm_lib

_KERNEL_INIT = nn.initializers.variance_scaling(
  2.0, 'fan_in', 'truncated_normal'
)


class Conv(nn.Module):
  """k x k convolution, "same" padding unless given; kernel in HWIO.

  Attributes:
    features: output channels.
    size: kernel side, odd.
    stride, dilation, padding: as in `ops.conv`.
    use_bias: whether a bias is added.
    dtype: compute type; parameters are float32.
  """

  features: int
  size: int = 1
  stride: int = 1
  dilation: int = 1
  padding: int | None = None
  use_bias: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    kernel = self.param(
      'kernel',
      _KERNEL_INIT,
      (self.size, self.size, x.shape[-1], self.features),
    )
    x = ops.conv(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      dilation=self.dilation,
      padding=self.padding,
    )
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
      # In float32: the bias's gradient is a sum over every pixel.
      x = (x + bias).astype(self.dtype)
    return x


class DepthwiseConv(nn.Module):
  """3 x 3 depthwise convolution, "same" padding; kernel (3, 3, 1, C)."""

  stride: int = 1
  dilation: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    kernel = self.param('kernel', _KERNEL_INIT, (3, 3, 1, x.shape[-1]))
    return ops.depthwise_conv(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      dilation=self.dilation,
    )


class InputScale(nn.Module):
  """(x - mean) / std per channel: the range that the weights were trained on.

  Attributes:
    mean, std: in units of the windowed image, [-1, 1]; one value or three.
  """

  mean: Sequence[float] = (0.0,)
  std: Sequence[float] = (1.0,)

  def __call__(self, images):
    mean = jnp.asarray(self.mean, images.dtype)
    std = jnp.asarray(self.std, images.dtype)
    return (images - mean) / std


def batch_norm(*, train, axis_name, epsilon, momentum, dtype):
  """A constructor of batch norms that all share these choices."""

  def make(name):
    return batch_norm_lib.BatchNorm(
      use_running_average=not train,
      axis_name=axis_name if train else None,
      epsilon=epsilon,
      momentum=momentum,
      dtype=dtype,
      name=name,
    )

  return make


def batch_norm_of(net, *, train):
  """`batch_norm` by the fields that every network has for it."""
  return batch_norm(
    train=train,
    axis_name=net.axis_name,
    epsilon=net.bn_epsilon,
    momentum=net.bn_momentum,
    dtype=net.dtype,
  )
