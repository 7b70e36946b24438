"""DeepLabv3+ with one output channel, and MT-Net's fine layer.

See Chen et al., 2018, and sections 3.2.2 and 3.2.3 and figures 2 and 4 of the
paper.
"""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.models import layers
from mtnet_jax.models import xception
from mtnet_jax.ops import common
from mtnet_jax.ops import conv as conv_lib


class ConvBnRelu(nn.Module):
  """Convolution with bias, batch norm, ReLU.

  Attributes:
    features: output channels.
    norm: makes a batch norm of the given name.
    size: kernel side, odd.
    dilation: step between taps.
    dtype: compute type.
  """

  features: int
  norm: layers.NormFn
  size: int = 1
  dilation: int = 1
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H, W, features)."""
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
  """Atrous spatial pyramid pooling.

  The branches are a 1 x 1 convolution, a dilated 3 x 3 convolution per rate,
  and image pooling. A 1 x 1 convolution fuses them.

  Attributes:
    features: channels of each branch and of the output.
    norm: makes a batch norm of the given name.
    rates: dilations of the 3 x 3 convolutions.
    dtype: compute type.
  """

  features: int
  norm: layers.NormFn
  rates: Sequence[int] = (6, 12, 18)
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H, W, features)."""
    branch = functools.partial(
      ConvBnRelu, self.features, norm=self.norm, dtype=self.dtype
    )
    branches = [branch(name='branch0')(x)]
    for i, rate in enumerate(self.rates, 1):
      branches.append(branch(size=3, dilation=rate, name=f'branch{i}')(x))
    pooled = branch(name='image_pooling')(jnp.mean(x, (1, 2), keepdims=True))
    # Broadcast in float32 or wider, because the gradient sums over the grid.
    pooled = jnp.broadcast_to(common.wide(pooled), branches[0].shape).astype(
      self.dtype
    )
    branches.append(pooled)
    return branch(name='fuse')(jnp.concatenate(branches, -1))


def average_onto(maps: jax.Array, features: jax.Array) -> jax.Array:
  """Averages maps onto the coarser grid of some features.

  Args:
    maps: (B, H, W, C).
    features: (B, H', W', C'); only its shape is used.

  Returns:
    (B, H', W', C).
  """
  # A cell of the coarse grid is about five pixels of the CT patch wide, so
  # sampling single points would miss small nodules.
  return jax.image.resize(
    maps, (*features.shape[:3], maps.shape[-1]), 'linear', antialias=True
  )


class DeepLabV3Plus(xception.AlignedXceptionFields, layers.Network):
  """Segmentation network: one logit per pixel.

  With a coarse mask it is Fine Seg-net: the mask is averaged onto the grid of
  the encoder's output, concatenated with it, and both pass the fine layer (1 x
  1 convolution, BN, ReLU) before the decoder.

  The other fields are those of the backbone, `xception.AlignedXceptionFields`,
  and of `layers.Network`.

  Attributes:
    aspp_features: channels of the pyramid.
    aspp_rates: dilations of the pyramid.
    low_level_features: channels to which the low-level features are reduced.
    decoder_features: channels of the decoder's convolutions.
    dropout_rates: rates after the pyramid and after each of the decoder's two
      convolutions.
    input_mean: mean of the inputs; see `layers.InputScale`.
    input_std: standard deviation of the inputs; see `layers.InputScale`.
  """

  aspp_features: int = 256
  aspp_rates: Sequence[int] = (6, 12, 18)
  low_level_features: int = 48
  decoder_features: int = 256
  dropout_rates: Sequence[float] = (0.5, 0.5, 0.1)
  input_mean: Sequence[float] = (0.0,)
  input_std: Sequence[float] = (1.0,)

  def _segment(
    self, images: jax.Array, coarse_mask: jax.Array | None, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    norm = self.batch_norm(train=train)
    conv_bn_relu = functools.partial(ConvBnRelu, norm=norm, dtype=self.dtype)

    def dropout(x, index):
      rate = self.dropout_rates[index]
      return nn.Dropout(rate, deterministic=not train)(x)

    x = layers.InputScale(self.input_mean, self.input_std)(images)
    x, taps = xception.AlignedXception(
      **layers.fields_of(self, xception.AlignedXceptionFields),
      norm=norm,
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
      x = conv_bn_relu(x.shape[-1], name='fine_layer')(
        jnp.concatenate([x, location], -1)
      )
      taps['fine_layer'] = x

    low_level = conv_bn_relu(self.low_level_features, name='low_level')(
      taps['low_level']
    )
    x = conv_lib.resize_align_corners(x, low_level.shape[1:3])
    x = jnp.concatenate([x, low_level], -1)
    x = conv_bn_relu(self.decoder_features, size=3, name='decoder1')(x)
    x = dropout(x, 1)
    x = conv_bn_relu(self.decoder_features, size=3, name='decoder2')(x)
    x = dropout(x, 2)
    taps['decoder'] = x
    logits = layers.Conv(1, use_bias=True, dtype=self.dtype, name='classifier')(
      x
    )
    logits = conv_lib.resize_align_corners(
      logits.astype(jnp.float32), images.shape[1:3]
    )
    return logits, taps
