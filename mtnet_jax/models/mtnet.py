"""The three networks of MT-Net (paper, section 3.2).

By default they have the paper's size and compute in float32 on one device.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mtnet_jax.models import deeplab
from mtnet_jax.models import layers
from mtnet_jax.models import xception


class CoarseSegNet(deeplab.DeepLabV3Plus):
  """Coarse Seg-net: a first mask of the nodule (section 3.2.2)."""

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Segments windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      train: whether to use batch statistics and dropout.

    Returns:
      Logits (B, H, W, 1) float32, and the taps, a dict of named features.
    """
    return self._segment(images, None, train=train)


class FineSegNet(deeplab.DeepLabV3Plus):
  """Fine Seg-net: the same network, guided by a coarse mask (section 3.2.3)."""

  @nn.compact
  def __call__(
    self, images: jax.Array, coarse_mask: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Segments windowed CT with the help of a coarse mask.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      coarse_mask: (B, H, W, 1), binary or probabilities. Further channels are
        further maps for the fine layer.
      train: whether to use batch statistics and dropout.

    Returns:
      Logits (B, H, W, 1) float32, and the taps, a dict of named features.
    """
    return self._segment(images, coarse_mask, train=train)


class ClassNet(xception.XceptionFields, layers.Network):
  """Class-net: benign or malignant (section 3.2.4).

  The other fields are those of the backbone, `xception.XceptionFields`, and of
  `layers.Network`.

  Attributes:
    use_coarse_mask: whether the coarse mask is the fourth input channel; False
      is plain Xception.
    input_mean: mean of the images; see `layers.InputScale`. The coarse mask is
      never scaled.
    input_std: standard deviation of the images; see `layers.InputScale`.
    dropout_rate: dropout of the last features; the paper has none.
  """

  use_coarse_mask: bool = True
  input_mean: Sequence[float] = (0.0,)
  input_std: Sequence[float] = (1.0,)
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    coarse_mask: jax.Array | None = None,
    *,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Classifies windowed CT with the help of a coarse mask.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      coarse_mask: (B, H, W, 1), binary or probabilities; ignored if
        `use_coarse_mask` is False.
      train: whether to use batch statistics and dropout.

    Returns:
      Logits of malignancy (B,) float32, and the taps, a dict of named features.
      Its `cam` (B, H', W') is the class activation map (Zhou et al., 2016): the
      logit is its mean plus the classifier's bias.

    Raises:
      ValueError: the coarse mask is an input of the network, and is missing.
    """
    x = layers.InputScale(self.input_mean, self.input_std)(images)
    if self.use_coarse_mask:
      if coarse_mask is None:
        raise ValueError(
          'coarse_mask is missing: give one, or set use_coarse_mask=False'
        )
      x = jnp.concatenate([x, coarse_mask.astype(x.dtype)], -1)
    x, taps = xception.Xception(
      **layers.fields_of(self, xception.XceptionFields),
      norm=self.batch_norm(train=train),
      name='backbone',
    )(x)
    if self.dropout_rate:
      # Drops whole channels: single pixels would average out in the mean.
      x = nn.Dropout(
        self.dropout_rate, broadcast_dims=(1, 2), deterministic=not train
      )(x)
    # The classifier is applied to each pixel before the mean is taken. Both
    # are linear, so the logit is that of global average pooling and a linear
    # layer, and the activation map costs nothing.
    x = layers.Conv(1, use_bias=False, name='classifier')(x)
    taps['cam'] = x[..., 0]
    bias = self.param('bias', nn.initializers.zeros_init(), ())
    return jnp.mean(taps['cam'], (1, 2)) + bias, taps


def average_fourth_channel(params: Mapping[str, Any]) -> dict[str, Any]:
  """Sets the first kernel's mask channel to the mean of its image channels.

  The paper initialises the fourth input channel of Class-net like this (section
  3.2.4).

  Args:
    params: the `params` collection of a `ClassNet` that uses the mask.

  Returns:
    A new tree, which shares all other leaves with `params`.
  """
  backbone = params['backbone']
  image = backbone['conv1']['kernel'][:, :, :3]
  kernel = jnp.concatenate([image, image.mean(2, keepdims=True)], 2)
  return {**params, 'backbone': {**backbone, 'conv1': {'kernel': kernel}}}
