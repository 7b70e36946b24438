"""Layers on top of `ops`, and the choices that all networks share."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.models import batch_norm as batch_norm_lib
from mtnet_jax.ops import common
from mtnet_jax.ops import conv as conv_lib
from mtnet_jax.ops import depthwise as depthwise_lib
from mtnet_jax.ops import few_channels
from mtnet_jax.ops import folded
from mtnet_jax.ops.native import library

# Makes a batch norm of the given name.
NormFn = Callable[[str], batch_norm_lib.BatchNorm]

_KERNEL_INIT = nn.initializers.variance_scaling(
  2.0, 'fan_in', 'truncated_normal'
)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds a bias (C,) to x (B, H, W, C), and returns x's type."""
  # Added in float32 or wider, because the gradient of the bias sums over all
  # pixels.
  wide = common.wide(x)
  return (wide + common.per_channel(bias).astype(wide.dtype)).astype(x.dtype)


class Conv(nn.Module):
  """Convolution with a square kernel, stored in HWIO layout.

  Attributes:
    features: output channels.
    size: kernel side, odd.
    stride: step between output pixels.
    dilation: step between taps; above 1 only with stride 1 and padding None.
    padding: pixels of zeros on each side; None for "same".
    use_bias: whether a bias is added.
    dtype: compute type; parameters are float32.
  """

  features: int
  size: int = 1
  stride: int = 1
  dilation: int = 1
  padding: int | None = None
  use_bias: bool = False
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def variables_for(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
    """Returns the kernel and the bias, if any, for that many input channels."""
    shape = (self.size, self.size, channels, self.features)
    kernel = self.param('kernel', _KERNEL_INIT, shape)
    bias = None
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    return kernel, bias

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H', W', features)."""
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
  """3 x 3 depthwise convolution with "same" padding; kernel (3, 3, 1, C).

  Attributes:
    stride: step between output pixels.
    dilation: step between taps.
    dtype: compute type; parameters are float32.
  """

  stride: int = 1
  dilation: int = 1
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def kernel_for(self, channels: int) -> jax.Array:
    """Returns the kernel for that many input channels."""
    return self.param('kernel', _KERNEL_INIT, (3, 3, 1, channels))

  def __call__(self, x: jax.Array, *, relu: bool = False) -> jax.Array:
    """Convolves x (B, H, W, C), or relu(x)."""
    return depthwise_lib.conv(
      x.astype(self.dtype),
      self.kernel_for(x.shape[-1]).astype(self.dtype),
      stride=self.stride,
      dilation=self.dilation,
      relu=relu,
    )


def _can_fold(loop, norm, x):
  """Whether a C++ loop supports x and can apply this batch norm, too."""
  return norm.use_running_average and library.supports(loop, x)


def _folded(norm, features, bias):
  """Returns an optional bias and the batch norm after it as one `Affine`."""
  scale, shift = norm.folded(features)
  if bias is not None:
    shift = scale * bias.astype(scale.dtype) + shift
  return common.Affine(scale, shift)


def conv_norm_relu(
  conv: Conv, norm: batch_norm_lib.BatchNorm, x: jax.Array
) -> jax.Array:
  """Applies a convolution, a batch norm and a ReLU, in one loop if possible.

  Args:
    conv: the convolution.
    norm: the batch norm.
    x: (B, H, W, C).

  Returns:
    (B, H', W', F).
  """
  x = x.astype(conv.dtype)
  is_plain = conv.size == 3 and conv.dilation == 1
  is_few = min(x.shape[-1], conv.features) < few_channels.LIMIT
  if not (is_plain and is_few and _can_fold('conv3x3', norm, x)):
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
  x: jax.Array,
  depthwise: DepthwiseConv,
  between: batch_norm_lib.BatchNorm | None,
  pointwise: Conv,
  after: batch_norm_lib.BatchNorm,
  *,
  relu_before: bool = False,
  relu_between: bool = False,
  relu_after: bool = False,
) -> jax.Array:
  """Applies a depthwise and a pointwise convolution, in one loop if possible.

  Args:
    x: (B, H, W, C).
    depthwise: the depthwise convolution.
    between: batch norm after the depthwise convolution, or None.
    pointwise: convolution of size 1.
    after: batch norm after the pointwise convolution.
    relu_before: whether a ReLU precedes the depthwise convolution.
    relu_between: whether a ReLU precedes the pointwise convolution.
    relu_after: whether a ReLU follows the last batch norm.

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
  """Scales images to the range that pretrained weights expect.

  Computes (x - mean) / std per channel.

  Attributes:
    mean: in units of the windowed image, [-1, 1]; one value or one per channel.
    std: likewise.
  """

  mean: Sequence[float] = (0.0,)
  std: Sequence[float] = (1.0,)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Scales (B, H, W, C)."""
    mean = jnp.asarray(self.mean, images.dtype)
    std = jnp.asarray(self.std, images.dtype)
    return (images - common.per_channel(mean)) / common.per_channel(std)


def batch_norm(
  *,
  train: bool,
  axis_name: str | None,
  epsilon: float,
  momentum: float,
  dtype: jax.typing.DTypeLike,
) -> NormFn:
  """Returns a function that makes batch norms with these settings.

  Args:
    train: whether to normalise by the batch's statistics.
    axis_name: axis over which these are averaged, or None.
    epsilon: added to the variance.
    momentum: weight of the old value in an update of the running statistics.
    dtype: type of the output.
  """

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
  """Base class of the networks: their common fields and batch norm.

  Attributes:
    bn_epsilon: added to the variance in every batch norm.
    bn_momentum: weight of the old value in an update of the running statistics.
    axis_name: axis over which batch statistics are averaged; None outside of
      `jax.pmap`.
    dtype: compute type; parameters, statistics and logits are float32.
  """

  bn_epsilon: float = 1e-5
  bn_momentum: float = 0.9
  axis_name: str | None = None
  dtype: jax.typing.DTypeLike = jnp.float32

  def batch_norm(self, *, train: bool) -> NormFn:
    """Returns a function that makes this network's batch norms by name."""
    return batch_norm(
      train=train,
      axis_name=self.axis_name,
      epsilon=self.bn_epsilon,
      momentum=self.bn_momentum,
      dtype=self.dtype,
    )


def fields_of(module: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
  """Returns a module's values of the fields of another module class.

  Args:
    module: has all fields of `kind`.
    kind: the other class.

  Returns:
    Keyword arguments of `kind`.
  """
  names = {field.name for field in dataclasses.fields(kind)}
  return {name: getattr(module, name) for name in names - {'parent', 'name'}}
