"""Networks that MT-Net is compared with.

`SharedNet` does both tasks with one encoder, the strategy of Wu et al. and Chen
et al. in the paper's table 1, on the blocks that MT-Net is made of. `UNet`
(Ronneberger et al., 2015) segments and does nothing else.

Without arguments they have the size of the paper's networks or their own
paper's, float32 and no collectives.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from mtnet_jax.models import deeplab
from mtnet_jax.models import layers
from mtnet_jax.ops import pooling

# First names of the variables that `SharedNet` has beside a Coarse Seg-net's.
CLASS_LAYERS = ('class_fusion', 'class_head')


class ClassHead(nn.Module):
  """Features to one logit and its class activation map, as in Class-net."""

  @nn.compact
  def __call__(self, x):
    """(B, H, W, C) -> logits (B,) and map (B, H, W), float32."""
    cam = layers.Conv(1, name='classifier')(x)[..., 0]
    bias = self.param('bias', nn.initializers.zeros_init(), ())
    return jnp.mean(cam, (1, 2)) + bias, cam


class SharedNet(deeplab.DeepLabV3Plus):
  """One encoder, two heads; both tasks update the encoder.

  The Coarse Seg-net, and a classifier on its deepest backbone features: global
  average pooling and one logit, as Class-net ends.

  Attributes:
    use_segmentation: the classifier also receives the features of which the
      mask is predicted (Chen et al.): the decoder's last, averaged onto the
      deepest grid, concatenated with the deepest features and fused as the fine
      layer fuses (1 x 1 convolution, BN, ReLU). False: it does not (Wu et al.).
    Others: as in `deeplab.DeepLabV3Plus`.
  """

  use_segmentation: bool = False

  @nn.compact
  def __call__(self, images, *, train):
    """Segments and classifies windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      train: batch statistics and dropout on.

    Returns:
      {'fine': (B, H, W, 1), 'class': (B,)} logits, float32, and taps, a dict
      of named features, with the class activation map as `cam` (B, H', W').
    """
    mask_logits, taps = self._segment(images, None, train=train)
    x = taps['backbone']
    if self.use_segmentation:
      features = deeplab.average_onto(taps['decoder'], x)
      x = deeplab.ConvBnRelu(
        x.shape[-1],
        norm=self.batch_norm(train=train),
        dtype=self.dtype,
        name='class_fusion',
      )(jnp.concatenate([x, features], -1))
      taps['class_fusion'] = x
    class_logits, taps['cam'] = ClassHead(name='class_head')(x)
    return {'fine': mask_logits, 'class': class_logits}, taps


class UpConv(nn.Module):
  """2 x 2 up-convolution of stride 2: every pixel becomes four.

  The kernel is (2, 2, C, F).
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    """(B, H, W, C) -> (B, 2H, 2W, F)."""
    batch, height, width, channels = x.shape
    kernel = self.param(
      'kernel',
      # Taps do not overlap: what adds up in a pixel is the channels alone.
      nn.initializers.variance_scaling(
        2.0, 'fan_in', 'truncated_normal', in_axis=2, out_axis=(0, 1, 3)
      ),
      (2, 2, channels, self.features),
    )
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    x = jnp.einsum(
      'bhwc,ijcf->bhiwjf', x.astype(self.dtype), kernel.astype(self.dtype)
    )
    x = x.reshape(batch, 2 * height, 2 * width, self.features)
    return layers.add_bias(x, bias)


class DoubleConv(nn.Module):
  """Twice: 3 x 3 convolution, BN, ReLU."""

  features: int
  norm: Callable[[str], nn.Module]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    for i in (1, 2):
      conv = layers.Conv(self.features, 3, dtype=self.dtype, name=f'conv{i}')
      x = layers.conv_norm_relu(conv, self.norm(f'bn{i}'), x)
    return x


class UNet(layers.Network):
  """U-Net with batch norm and "same" padding: one logit per pixel.

  Attributes:
    widths: channels of each level and, last, of the bottom; four poolings by
      default.
    Others: as in `layers.Network`.
  """

  widths: Sequence[int] = (64, 128, 256, 512, 1024)

  @nn.compact
  def __call__(self, images, *, train):
    """Segments windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1], of any size.
      train: batch statistics on.

    Returns:
      logits (B, H, W, 1) float32, and taps: `down<i>` and `up<i>` of level i,
      `bottom`.
    """
    norm = self.batch_norm(train=train)

    def double_conv(x, width, name):
      taps[name] = DoubleConv(width, norm=norm, dtype=self.dtype, name=name)(x)
      return taps[name]

    taps = {}
    *widths, bottom = self.widths
    x = images
    for i, width in enumerate(widths, 1):
      x = double_conv(x, width, f'down{i}')
      # Odd sizes are rounded up, and what is too much cut off on the way up.
      x = pooling.max_pool(x, size=2, stride=2, padding='same')
    x = double_conv(x, bottom, 'bottom')
    for i, width in reversed(list(enumerate(widths, 1))):
      skip = taps[f'down{i}']
      x = UpConv(width, dtype=self.dtype, name=f'upconv{i}')(x)
      x = x[:, : skip.shape[1], : skip.shape[2]]
      x = double_conv(jnp.concatenate([skip, x], -1), width, f'up{i}')
    logits = layers.Conv(1, use_bias=True, dtype=self.dtype, name='classifier')(
      x
    )
    return logits.astype(jnp.float32), taps
