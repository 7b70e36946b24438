"""DeepLabv3+ with one output channel, and MT-Net's fine layer.

Chen et al., 2018; paper, sections 3.2.2 and 3.2.3, figures 2 and 4.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.models import layers
from mtnet_jax.models import xception
from mtnet_jax.ops import conv as conv_lib


class ConvBnRelu(nn.Module):
  """Convolution with bias, batch norm, ReLU."""

  features: int
  norm: Callable[[str], nn.Module]
  size: int = 1
  dilation: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    conv = layers.Conv(
      self.features,
      self.size,
      dilation=self.dilation,
      use_bias=True,
      dtype=self.dtype,
      name='conv',
    )
    return layers.conv_norm_relu(conv, self.norm('bn'), x)


class Aspp(nn.Module):
  """Atrous spatial pyramid pooling: 1 x 1, dilated 3 x 3s, image pooling."""

  features: int
  norm: Callable[[str], nn.Module]
  rates: Sequence[int] = (6, 12, 18)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    def branch(name, **kwargs):
      return ConvBnRelu(
        self.features, norm=self.norm, dtype=self.dtype, name=name, **kwargs
      )

    branches = [branch('branch0')(x)]
    for i, rate in enumerate(self.rates, 1):
      branches.append(branch(f'branch{i}', size=3, dilation=rate)(x))
    pooled = branch('image_pooling')(jnp.mean(x, (1, 2), keepdims=True))
    # At least in float32, for its gradient is a sum over the grid.
    wide = jnp.promote_types(self.dtype, jnp.float32)
    pooled = jnp.broadcast_to(pooled.astype(wide), branches[0].shape).astype(
      self.dtype
    )
    branches.append(pooled)
    return branch('fuse')(jnp.concatenate(branches, -1))


def average_onto(maps, features):
  """Maps (B, H, W, C) on the coarser grid of features: (B, H', W', C)."""
  # Averaged, not sampled: cells are five patch pixels wide, and sampling at
  # their corners would miss small nodules altogether.
  return jax.image.resize(
    maps, (*features.shape[:3], maps.shape[-1]), 'linear', antialias=True
  )


class DeepLabV3Plus(nn.Module):
  """Segmentation network: one logit per pixel.

  With a coarse mask it is the Fine Seg-net: the deepest encoder features and
  the mask, resized to their grid, pass the fine layer (1 x 1 convolution, BN,
  ReLU) before the decoder.

  Attributes:
    stem_widths ... tail_widths: the backbone's sizes, as in
      `xception.AlignedXception`.
    aspp_features, low_level_features, decoder_features: channels.
    aspp_rates: dilations of the pyramid.
    dropout_rates: after the pyramid, and after each decoder convolution.
    tail_dilation, skip_relu: what public weights differ in; see
      `xception.AlignedXception`.
    input_mean, input_std: range the weights expect; see `layers.InputScale`.
    bn_epsilon, bn_momentum: of every batch norm. The momentum is the share of
      the old average that is kept.
    axis_name: axis over which batch statistics are averaged; None outside a
      pmap.
    dtype: compute type; parameters, statistics and logits are float32.
  """

  stem_widths: Sequence[int] = (32, 64)
  entry_widths: Sequence[int] = (128, 256, 728)
  middle_blocks: int = 16
  exit_width: int = 1024
  tail_widths: Sequence[int] = (1536, 1536, 2048)
  aspp_features: int = 256
  aspp_rates: Sequence[int] = (6, 12, 18)
  low_level_features: int = 48
  decoder_features: int = 256
  dropout_rates: Sequence[float] = (0.5, 0.5, 0.1)
  tail_dilation: int = 2
  skip_relu: bool = False
  input_mean: Sequence[float] = (0.0,)
  input_std: Sequence[float] = (1.0,)
  bn_epsilon: float = 1e-5
  bn_momentum: float = 0.9
  axis_name: str | None = None
  dtype: Any = jnp.float32

  def _segment(self, images, coarse_mask, *, train):
    norm = layers.batch_norm_of(self, train=train)

    def conv_bn_relu(features, name, size=1):
      return ConvBnRelu(
        features, norm=norm, size=size, dtype=self.dtype, name=name
      )

    def dropout(x, index):
      rate = self.dropout_rates[index]
      return nn.Dropout(rate, deterministic=not train)(x)

    x = layers.InputScale(self.input_mean, self.input_std)(images)
    x, taps = xception.AlignedXception(
      norm=norm,
      stem_widths=self.stem_widths,
      entry_widths=self.entry_widths,
      middle_blocks=self.middle_blocks,
      exit_width=self.exit_width,
      tail_widths=self.tail_widths,
      tail_dilation=self.tail_dilation,
      skip_relu=self.skip_relu,
      dtype=self.dtype,
      name='backbone',
    )(x)
    x = Aspp(
      self.aspp_features,
      norm=norm,
      rates=self.aspp_rates,
      dtype=self.dtype,
      name='aspp',
    )(x)
    x = dropout(x, 0)
    taps['encoder'] = x

    if coarse_mask is not None:
      location = average_onto(coarse_mask.astype(self.dtype), x)
      x = conv_bn_relu(x.shape[-1], 'fine_layer')(
        jnp.concatenate([x, location], -1)
      )
      taps['fine_layer'] = x

    low_level = conv_bn_relu(self.low_level_features, 'low_level')(
      taps['low_level']
    )
    x = conv_lib.resize_align_corners(x, low_level.shape[1:3])
    x = jnp.concatenate([x, low_level], -1)
    x = conv_bn_relu(self.decoder_features, 'decoder1', size=3)(x)
    x = dropout(x, 1)
    x = conv_bn_relu(self.decoder_features, 'decoder2', size=3)(x)
    x = dropout(x, 2)
    taps['decoder'] = x
    logits = layers.Conv(1, use_bias=True, dtype=self.dtype, name='classifier')(
      x
    )
    logits = conv_lib.resize_align_corners(
      logits.astype(jnp.float32), images.shape[1:3]
    )
    return logits, taps
