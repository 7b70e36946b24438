"""Networks that MT-Net is compared with.

`SharedNet` solves both tasks with one encoder, which is the strategy of Wu et
al. and Chen et al. in the paper's table 1. It is built from MT-Net's blocks.
`UNet` (Ronneberger et al., 2015) only segments.

By default, `SharedNet` has the size of the paper's networks and `UNet` the size
in its own paper. Both compute in float32 and on one device.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.models import deeplab
from mtnet_jax.models import layers
from mtnet_jax.ops import pooling

# The top-level modules that `SharedNet` adds to those of Coarse Seg-net.
CLASS_LAYERS = ('class_fusion', 'class_head')


class ClassHead(nn.Module):
  """The last layers of Class-net: a class activation map, and its mean."""

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps (B, H, W, C) to logits (B,) and the map (B, H, W), float32."""
    cam = layers.Conv(1, name='classifier')(x)[..., 0]
    bias = self.param('bias', nn.initializers.zeros_init(), ())
    return jnp.mean(cam, (1, 2)) + bias, cam


class SharedNet(deeplab.DeepLabV3Plus):
  """One encoder with two heads; both tasks update the encoder.

  This is Coarse Seg-net with a classifier on the last features of its backbone:
  global average pooling and one logit, like the end of Class-net. The other
  fields are those of `deeplab.DeepLabV3Plus`.

  Attributes:
    use_segmentation: whether the classifier also receives the decoder's last
      features, from which the mask is predicted (Chen et al.). They are
      averaged onto the grid of the backbone's features, concatenated with these
      and fused by a layer like the fine layer (1 x 1 convolution, BN, ReLU).
      False is the network of Wu et al.
  """

  use_segmentation: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Segments and classifies windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      train: whether to use batch statistics and dropout.

    Returns:
      A dict of float32 logits, 'fine' (B, H, W, 1) and 'class' (B,), and the
      taps, a dict of named features. Its `cam` (B, H', W') is the class
      activation map.
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
  """2 x 2 transposed convolution of stride 2: every pixel becomes four.

  The kernel is (2, 2, C, F).

  Attributes:
    features: output channels, F.
    dtype: compute type.
  """

  features: int
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, 2 H, 2 W, F)."""
    batch, height, width, channels = x.shape
    kernel = self.param(
      'kernel',
      # The taps do not overlap, so each output pixel sums over channels only.
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
  """Two 3 x 3 convolutions, each followed by BN and ReLU.

  Attributes:
    features: output channels.
    norm: makes a batch norm of the given name.
    dtype: compute type.
  """

  features: int
  norm: layers.NormFn
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H, W, features)."""
    for i in (1, 2):
      conv = layers.Conv(self.features, 3, dtype=self.dtype, name=f'conv{i}')
      x = layers.conv_norm_relu(conv, self.norm(f'bn{i}'), x)
    return x


class UNet(layers.Network):
  """U-Net with batch norm and "same" padding: one logit per pixel.

  The other fields are those of `layers.Network`.

  Attributes:
    widths: channels of each level, from the top to the bottom. There is one
      pooling between two levels: four by default.
  """

  widths: Sequence[int] = (64, 128, 256, 512, 1024)

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Segments windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1], of any size.
      train: whether to use batch statistics.

    Returns:
      Logits (B, H, W, 1) float32, and the taps: `down<i>` and `up<i>` for each
      level i, and `bottom`.
    """
    norm = self.batch_norm(train=train)
    taps: dict[str, jax.Array] = {}

    def double_conv(x, width, name):
      taps[name] = DoubleConv(width, norm=norm, dtype=self.dtype, name=name)(x)
      return taps[name]

    *widths, bottom = self.widths
    x = images
    for i, width in enumerate(widths, 1):
      x = double_conv(x, width, f'down{i}')
      # Pooling rounds odd sizes up; the extra row or column is cut off below.
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
