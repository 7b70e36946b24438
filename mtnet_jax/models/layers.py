"""Convolution layers on `ops`, and the choices all networks make once."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from mtnet_jax.models import batch_norm as batch_norm_lib
from mtnet_jax.ops import common
from mtnet_jax.ops import conv as conv_lib
from mtnet_jax.ops import depthwise as depthwise_lib
from mtnet_jax.ops import few_channels
from mtnet_jax.ops import folded
from mtnet_jax.ops.native import library

_KERNEL_INIT = nn.initializers.variance_scaling(
  2.0, 'fan_in', 'truncated_normal'
)


def add_bias(x, bias):
  """(B, H, W, C) plus (C,), in x's type."""
  # In float32: the bias's gradient is a sum over every pixel.
  wide = common.wide(x)
  return (wide + common.per_channel(bias).astype(wide.dtype)).astype(x.dtype)


class Conv(nn.Module):
  """k x k convolution, "same" padding unless given; kernel in HWIO.

  Attributes:
    features: output channels.
    size: kernel side, odd.
    stride, dilation, padding: as in `conv.conv`.
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
  def variables_for(self, channels):
    """The kernel, and the bias or None, for an input of so many channels."""
    shape = (self.size, self.size, channels, self.features)
    kernel = self.param('kernel', _KERNEL_INIT, shape)
    bias = None
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    return kernel, bias

  def __call__(self, x):
    kernel, bias = self.variables_for(x.shape[-1])
    x = conv_lib.conv(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      dilation=self.dilation,
      padding=self.padding,
    )
    if bias is not None:
      x = add_bias(x, bias)
    return x


class DepthwiseConv(nn.Module):
  """3 x 3 depthwise convolution, "same" padding; kernel (3, 3, 1, C)."""

  stride: int = 1
  dilation: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def kernel_for(self, channels):
    """The kernel for an input of so many channels."""
    return self.param('kernel', _KERNEL_INIT, (3, 3, 1, channels))

  def __call__(self, x, *, relu=False):
    """The convolution of x, or of relu(x)."""
    return depthwise_lib.conv(
      x.astype(self.dtype),
      self.kernel_for(x.shape[-1]).astype(self.dtype),
      stride=self.stride,
      dilation=self.dilation,
      relu=relu,
    )


def _can_fold(loop, norm, x):
  """Whether a loop can take x and what this batch norm does to its output."""
  return norm.use_running_average and library.supports(loop, x)


def _folded(norm, features, bias):
  """`common.Affine` of a bias, which may be None, and a batch norm after it."""
  scale, shift = norm.folded(features)
  if bias is not None:
    shift = scale * bias.astype(scale.dtype) + shift
  return common.Affine(scale, shift)


def conv_norm_relu(conv, norm, x):
  """ReLU of a batch norm of a convolution.

  Args:
    conv: `Conv`.
    norm: batch norm.
    x: (B, H, W, C).

  Returns:
    (B, H', W', F).
  """
  x = x.astype(conv.dtype)
  channels = min(x.shape[-1], conv.features)
  is_first = conv.size == 3 and conv.dilation == 1
  is_few = is_first and channels < few_channels.LIMIT
  if not (is_few and _can_fold('conv3x3', norm, x)):
    return nn.relu(norm(conv(x)))
  kernel, bias = conv.variables_for(x.shape[-1])
  return folded.few_channels_conv(
    x,
    kernel.astype(x.dtype),
    _folded(norm, conv.features, bias),
    stride=conv.stride,
    pad=1 if conv.padding is None else conv.padding,
  )


def separable_conv(
  x,
  depthwise,
  between,
  pointwise,
  after,
  *,
  relu_before=False,
  relu_between=False,
  relu_after=False,
):
  """Depthwise convolution, batch norm, pointwise convolution, batch norm.

  Args:
    x: (B, H, W, C).
    depthwise: `DepthwiseConv`.
    between: batch norm, or None.
    pointwise: `Conv` of size 1.
    after: batch norm.
    relu_before, relu_between, relu_after: where a ReLU is.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), F).
  """
  x = x.astype(depthwise.dtype)
  has_loop = depthwise_lib.has_loop(depthwise.stride, depthwise.dilation)
  is_pointwise = (pointwise.size, pointwise.stride) == (1, 1)
  if has_loop and is_pointwise and _can_fold('separable', after, x):
    channels = x.shape[-1]
    kernel, bias = pointwise.variables_for(channels)
    return folded.separable_conv(
      x,
      depthwise.kernel_for(channels).astype(x.dtype),
      between.folded(channels) if between else folded.identity(channels),
      kernel.astype(x.dtype),
      _folded(after, pointwise.features, bias),
      stride=depthwise.stride,
      dilation=depthwise.dilation,
      relu_before=relu_before,
      relu_between=relu_between,
      relu_after=relu_after,
    )
  x = depthwise(x, relu=relu_before)
  x = between(x) if between else x
  x = nn.relu(x) if relu_between else x
  x = after(pointwise(x))
  return nn.relu(x) if relu_after else x


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
    return (images - common.per_channel(mean)) / common.per_channel(std)


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


class Network(nn.Module):
  """Fields that every network has, and what follows from them.

  Attributes:
    bn_epsilon, bn_momentum: of every batch norm. The momentum is the share of
      the old average that is kept.
    axis_name: axis over which batch statistics are averaged; None outside a
      pmap.
    dtype: compute type; parameters, statistics and logits are float32.
  """

  bn_epsilon: float = 1e-5
  bn_momentum: float = 0.9
  axis_name: str | None = None
  dtype: Any = jnp.float32

  def batch_norm(self, *, train):
    """The constructor of this network's batch norms, by name."""
    return batch_norm(
      train=train,
      axis_name=self.axis_name,
      epsilon=self.bn_epsilon,
      momentum=self.bn_momentum,
      dtype=self.dtype,
    )


def fields_of(module, kind):
  """Values that a module has for the fields of another class of modules.

  Args:
    module: has all these fields.
    kind: the class.

  Returns:
    A dict: keyword arguments of `kind`.
  """
  names = {field.name for field in dataclasses.fields(kind)}
  return {name: getattr(module, name) for name in names - {'parent', 'name'}}
