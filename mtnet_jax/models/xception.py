"""The two Xception backbones of MT-Net.

`AlignedXception` is the modified aligned Xception of DeepLabv3+ (Chen et al.,
2018; paper, figure 3): no max-pooling, batch norm after every depthwise and
pointwise convolution, output stride 16. `Xception` is the original network
(Chollet, 2017; paper, figure 5) in Keras's layout, with the paper's change to
the exit flow.

Blocks are numbered through: `block1` to `block3` are the entry flow, then come
the middle flow and the exit block. The separable convolutions after the last
block, here called the tail, are `sepconv1`, `sepconv2`, ...
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.models import layers
from mtnet_jax.ops import pooling


class SeparableConv(nn.Module):
  """Depthwise convolution, pointwise convolution, BN, as in Keras.

  Attributes:
    features: output channels.
    norm: makes a batch norm of the given name.
    stride: stride of the depthwise convolution.
    dilation: dilation of the depthwise convolution.
    aligned: whether a batch norm follows the depthwise convolution, too.
    relu: 'before' for a ReLU on the input, 'after' for one after every batch
      norm, or None.
    dtype: compute type.
  """

  features: int
  norm: layers.NormFn
  stride: int = 1
  dilation: int = 1
  aligned: bool = False
  relu: str | None = None
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H / stride, W / stride, features)."""
    return layers.separable_conv(
      x,
      layers.DepthwiseConv(
        self.stride, self.dilation, self.dtype, name='depthwise'
      ),
      self.norm('depthwise_bn') if self.aligned else None,
      layers.Conv(self.features, dtype=self.dtype, name='pointwise'),
      self.norm('pointwise_bn' if self.aligned else 'bn'),
      relu_before=self.relu == 'before',
      relu_between=self.aligned and self.relu == 'after',
      relu_after=self.relu == 'after',
    )


class _Block(nn.Module):
  """Base class of both kinds of residual blocks.

  Attributes:
    widths: channels of the separable convolutions.
    norm: makes a batch norm of the given name.
    skip_relu: whether an identity skip carries relu(x) instead of x.
    dtype: compute type.
  """

  widths: Sequence[int]
  norm: layers.NormFn
  skip_relu: bool = False
  dtype: jax.typing.DTypeLike = jnp.float32

  def _skip(self, x, stride):
    """Computes the skip: 1 x 1 convolution and BN where the shape changes."""
    features = self.widths[-1]
    if stride == 1 and x.shape[-1] == features:
      return nn.relu(x) if self.skip_relu else x
    conv = layers.Conv(features, stride=stride, dtype=self.dtype, name='skip')
    x = conv(x)
    return self.norm('skip_bn')(x)


class AlignedBlock(_Block):
  """Three separable convolutions, the last one strided, and a skip.

  The other fields are those of `_Block`.

  Attributes:
    stride: stride of the last convolution and of the skip.
  """

  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Maps (B, H, W, C) to (B, H / stride, W / stride, widths[-1]).

    Returns:
      The block's output, and the output of its second convolution, after the
      batch norm and before any ReLU. In block 2, this is DeepLabv3+'s low-level
      feature.
    """
    skip = self._skip(x, self.stride)
    second = None
    for i, width in enumerate(self.widths, 1):
      last = i == len(self.widths)
      x = SeparableConv(
        width,
        norm=self.norm,
        stride=self.stride if last else 1,
        aligned=True,
        relu='before',
        dtype=self.dtype,
        name=f'sepconv{i}',
      )(x)
      if i == 2:
        second = x
    return x + skip, second


# `nn.jit` traces the equal blocks of the middle flow once, which saves a third
# of the time to trace and lower a step. XLA compiles the same program; profiles
# show every block under the name of the first. Two networks never share a
# trace, because its key includes `norm`, which is made for each network.
_MiddleAlignedBlock = nn.jit(AlignedBlock)


class AlignedXceptionFields(nn.Module):
  """The fields of `AlignedXception`, and of every network that contains one.

  The defaults are those of Xception-65.

  Attributes:
    stem_widths: channels of the two plain convolutions.
    entry_widths: channels of the entry blocks; each halves the grid.
    middle_blocks: number of identity blocks, all of the last entry width.
    exit_width: channels of the exit block.
    tail_widths: channels of the tail's separable convolutions.
    tail_dilation: dilation of the tail: 2 in DeepLabv3+ at output stride 16, 1
      for weights that were trained without dilation.
    skip_relu: whether identity skips carry relu(x), as in PyTorch code that
      applies the first ReLU of a block in place.
    dtype: compute type.
  """

  stem_widths: Sequence[int] = (32, 64)
  entry_widths: Sequence[int] = (128, 256, 728)
  middle_blocks: int = 16
  exit_width: int = 1024
  tail_widths: Sequence[int] = (1536, 1536, 2048)
  tail_dilation: int = 2
  skip_relu: bool = False
  dtype: jax.typing.DTypeLike = jnp.float32


def _stem(backbone, x, padding=None):
  """Applies 3 x 3 convolutions with BN and ReLU; the first one is strided."""
  for i, width in enumerate(backbone.stem_widths, 1):
    conv = layers.Conv(
      width,
      3,
      stride=2 if i == 1 else 1,
      padding=padding,
      dtype=backbone.dtype,
      name=f'conv{i}',
    )
    x = layers.conv_norm_relu(conv, backbone.norm(f'bn{i}'), x)
  return x


class AlignedXception(AlignedXceptionFields, kw_only=True):
  """Modified aligned Xception, at output stride 16.

  The exit block keeps the grid. The other fields are those of
  `AlignedXceptionFields`.

  Attributes:
    norm: makes a batch norm of the given name.
  """

  norm: layers.NormFn

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps (B, H, W, 3) to (B, H / 16, W / 16, tail_widths[-1]).

    Returns:
      The features, and the taps: `block<i>` is the output of block i,
      `low_level` DeepLabv3+'s low-level feature, at stride 4, and `backbone`
      the features again.
    """
    taps: dict[str, jax.Array] = {}
    x = _stem(self, x)

    def block(x, widths, stride=1, kind=AlignedBlock):
      index = sum(name.startswith('block') for name in taps) + 1
      x, second = kind(
        widths,
        norm=self.norm,
        stride=stride,
        skip_relu=self.skip_relu,
        dtype=self.dtype,
        name=f'block{index}',
      )(x)
      taps[f'block{index}'] = x
      return x, second

    for width in self.entry_widths:
      x, second = block(x, (width,) * 3, stride=2)
      # DeepLabv3+ reads its low-level feature inside block 2.
      if 'block2' in taps and 'low_level' not in taps:
        taps['low_level'] = second
    width = self.entry_widths[-1]
    for _ in range(self.middle_blocks):
      x, _ = block(x, (width,) * 3, kind=_MiddleAlignedBlock)
    x, _ = block(x, (width, self.exit_width, self.exit_width))
    for i, width in enumerate(self.tail_widths, 1):
      x = SeparableConv(
        width,
        norm=self.norm,
        dilation=self.tail_dilation,
        aligned=True,
        relu='after',
        dtype=self.dtype,
        name=f'sepconv{i}',
      )(x)
    taps['backbone'] = x
    return x, taps


class XceptionBlock(_Block):
  """Separable convolutions with a ReLU before each, and a skip.

  The other fields are those of `_Block`.

  Attributes:
    pool: whether the block ends in 3 x 3 max-pooling of stride 2, and its skip
      is strided.
    first_relu: whether a ReLU precedes the first convolution.
    pool_padding: padding of the max-pooling; see `pooling.max_pool`.
  """

  pool: bool = False
  first_relu: bool = True
  pool_padding: str = 'symmetric'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H, W, widths[-1]), or half the grid."""
    skip = self._skip(x, 2 if self.pool else 1)
    for i, width in enumerate(self.widths, 1):
      x = SeparableConv(
        width,
        norm=self.norm,
        relu='before' if i > 1 or self.first_relu else None,
        dtype=self.dtype,
        name=f'sepconv{i}',
      )(x)
    if self.pool:
      x = pooling.max_pool(x, padding=self.pool_padding)
    return x + skip


_MiddleXceptionBlock = nn.jit(XceptionBlock)


class XceptionFields(AlignedXceptionFields):
  """The fields of `Xception`, and of every network that contains one.

  The other fields are those of `AlignedXceptionFields`.

  Attributes:
    middle_blocks: number of identity blocks, all of the last entry width.
    tail_widths: channels of the tail's separable convolutions.
    exit_pool: whether to keep the exit flow's max-pooling, as in the original.
    pool_padding: padding of the max-pooling; see `pooling.max_pool`. Keras pads
      'same'.
  """

  middle_blocks: int = 8
  tail_widths: Sequence[int] = (1536, 2048)
  exit_pool: bool = False
  pool_padding: str = 'symmetric'


class Xception(XceptionFields, kw_only=True):
  """Xception with a dilated tail in place of its last max-pooling.

  The stem has "valid" padding. The other fields are those of `XceptionFields`.

  Attributes:
    norm: makes a batch norm of the given name.
  """

  norm: layers.NormFn

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps (B, H, W, C) to (B, H', W', tail_widths[-1]).

    Returns:
      The features, and the taps: `block<i>` is the output of block i, and
      `backbone` the features again.
    """
    taps: dict[str, jax.Array] = {}
    x = _stem(self, x, padding=0)

    def block(x, widths, kind=XceptionBlock, **kwargs):
      index = len(taps) + 1
      x = kind(
        widths,
        norm=self.norm,
        pool_padding=self.pool_padding,
        skip_relu=self.skip_relu,
        dtype=self.dtype,
        name=f'block{index}',
        **kwargs,
      )(x)
      taps[f'block{index}'] = x
      return x

    for i, width in enumerate(self.entry_widths):
      x = block(x, (width,) * 2, pool=True, first_relu=i > 0)
    width = self.entry_widths[-1]
    for _ in range(self.middle_blocks):
      x = block(x, (width,) * 3, kind=_MiddleXceptionBlock)
    x = block(x, (width, self.exit_width), pool=self.exit_pool)
    for i, width in enumerate(self.tail_widths, 1):
      x = SeparableConv(
        width,
        norm=self.norm,
        dilation=self.tail_dilation,
        relu='after',
        dtype=self.dtype,
        name=f'sepconv{i}',
      )(x)
    taps['backbone'] = x
    return x, taps
