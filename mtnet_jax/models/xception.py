"""The two Xceptions of MT-Net.

`AlignedXception` is the modified aligned Xception of DeepLabv3+ (Chen et al.,
2018; paper, figure 3): no max-pooling, batch norm after every depthwise and
pointwise convolution, output stride 16. `Xception` is the original one
(Chollet, 2017; paper, figure 5), in Keras's layout, with the paper's change to
the exit flow.

Layers are named by their place: `block1` to `block3` are the entry flow, then
the middle flow, then the exit block; separable convolutions count on from
there as `sepconv1`, `sepconv2`, ... of the tail.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from mtnet_jax.models import layers
from mtnet_jax.ops import pooling


class SeparableConv(nn.Module):
  """Depthwise and pointwise convolution, BN: Keras's layout.

  Attributes:
    features: output channels.
    norm: constructor of batch norms, by name.
    stride, dilation: of the depthwise convolution.
    aligned: batch norm after the depthwise convolution, too.
    relu: where a ReLU is: 'before', 'after' every batch norm, or None.
    dtype: compute type.
  """

  features: int
  norm: Callable[[str], nn.Module]
  stride: int = 1
  dilation: int = 1
  aligned: bool = False
  relu: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
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
  """What both kinds of blocks have.

  Attributes:
    widths: channels of the separable convolutions.
    norm: constructor of batch norms, by name.
    skip_relu: the identity skip carries relu(x).
    dtype: compute type.
  """

  widths: Sequence[int]
  norm: Callable[[str], nn.Module]
  skip_relu: bool = False
  dtype: Any = jnp.float32

  def _skip(self, x, stride):
    """The skip: 1 x 1 convolution and BN where the block changes the shape."""
    features = self.widths[-1]
    if stride == 1 and x.shape[-1] == features:
      return nn.relu(x) if self.skip_relu else x
    conv = layers.Conv(features, stride=stride, dtype=self.dtype, name='skip')
    x = conv(x)
    return self.norm('skip_bn')(x)


class AlignedBlock(_Block):
  """Three separable convolutions, the last one strided, and a skip.

  Returns the sum and the second convolution's output: DeepLabv3+ takes its
  low-level feature there, after the batch norm and before any ReLU.
  """

  stride: int = 1

  @nn.compact
  def __call__(self, x):
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


# Traced once for all that are alike: a step is traced and lowered in two thirds
# of the time.
# `norm`, made anew wherever a network is traced, keeps its traces apart from
# others. XLA gets the same program; profiles name every block like the first.
_MiddleAlignedBlock = nn.jit(AlignedBlock)


class AlignedXceptionFields(nn.Module):
  """Fields of `AlignedXception`, and of every network around one.

  The defaults are Xception-65.

  Attributes:
    stem_widths: channels of the two plain convolutions.
    entry_widths: channels of the entry blocks; each halves the grid.
    middle_blocks: identity blocks of the last entry width.
    exit_width: channels of the exit block.
    tail_widths: channels of the last separable convolutions.
    tail_dilation: their dilation: 2 in DeepLabv3+ at output stride 16; 1 where
      the weights were trained without.
    skip_relu: identity skips carry relu(x), as in PyTorch code that applies
      the first ReLU of a block in place.
    dtype: compute type.
  """

  stem_widths: Sequence[int] = (32, 64)
  entry_widths: Sequence[int] = (128, 256, 728)
  middle_blocks: int = 16
  exit_width: int = 1024
  tail_widths: Sequence[int] = (1536, 1536, 2048)
  tail_dilation: int = 2
  skip_relu: bool = False
  dtype: Any = jnp.float32


def _stem(backbone, x, padding=None):
  """Plain 3 x 3 convolutions, the first one strided; BN and ReLU after each."""
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
  """Modified aligned Xception.

  Attributes:
    norm: constructor of batch norms, by name.
    Others: as in `AlignedXceptionFields`. The exit block keeps the grid.
  """

  norm: Callable[[str], nn.Module]

  @nn.compact
  def __call__(self, x):
    """Maps (B, H, W, 3) to features (B, H/16, W/16, tail_widths[-1]).

    Returns:
      The features, and taps: `low_level` at stride 4, `block<i>`, `backbone`.
    """
    taps = {}
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
  """Separable convolutions, ReLU before each, and a skip.

  Attributes:
    pool: max-pooling 3 x 3 / 2 at the end, and a strided skip.
    first_relu: whether the first convolution has its ReLU.
    pool_padding: as in `pooling.max_pool`.
  """

  pool: bool = False
  first_relu: bool = True
  pool_padding: str = 'symmetric'

  @nn.compact
  def __call__(self, x):
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
  """Fields of `Xception`, and of every network around one.

  Attributes:
    tail_dilation: dilation of the last separable convolutions, and padding.
    exit_pool: keep the exit flow's max-pooling, as the original does.
    pool_padding: as in `pooling.max_pool`; Keras pads 'same'.
    Others: as in `AlignedXceptionFields`, with other defaults.
  """

  middle_blocks: int = 8
  tail_widths: Sequence[int] = (1536, 2048)
  exit_pool: bool = False
  pool_padding: str = 'symmetric'


class Xception(XceptionFields, kw_only=True):
  """Xception without its last max-pooling, the tail dilated instead.

  Attributes:
    norm: constructor of batch norms, by name.
    Others: as in `XceptionFields`. The stem has "valid" padding.
  """

  norm: Callable[[str], nn.Module]

  @nn.compact
  def __call__(self, x):
    """Maps (B, H, W, C) to features (B, H', W', tail_widths[-1]), and taps."""
    taps = {}
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
