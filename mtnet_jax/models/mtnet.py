"""The three networks of MT-Net (paper, section 3.2).

Without arguments they have the paper's size, float32 and no collectives.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax.numpy as jnp

from mtnet_jax.models import deeplab
from mtnet_jax.models import layers
from mtnet_jax.models import xception


class CoarseSegNet(deeplab.DeepLabV3Plus):
  """Coarse Seg-net: where the nodule is (section 3.2.2)."""

  @nn.compact
  def __call__(self, images, *, train):
    """Segments windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      train: batch statistics and dropout on.

    Returns:
      logits (B, H, W, 1) float32, and taps, a dict of named features.
    """
    return self._segment(images, None, train=train)


class FineSegNet(deeplab.DeepLabV3Plus):
  """Fine Seg-net: the same network, guided by a coarse mask (section 3.2.3)."""

  @nn.compact
  def __call__(self, images, coarse_mask, *, train):
    """Segments windowed CT given a coarse mask.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      coarse_mask: (B, H, W, 1), 0 and 1 or probabilities. More channels are
        more maps that the fine layer receives.
      train: batch statistics and dropout on.

    Returns:
      logits (B, H, W, 1) float32, and taps, a dict of named features.
    """
    return self._segment(images, coarse_mask, train=train)


class ClassNet(xception.XceptionFields, layers.Network):
  """Class-net: benign or malignant (section 3.2.4).

  Attributes:
    use_coarse_mask: False leaves the fourth input channel out: plain Xception.
    input_mean, input_std: range the weights expect; see `layers.InputScale`.
      The coarse mask is never scaled.
    dropout_rate: of the features that the classifier sees; none in the paper.
    Others: as in `xception.XceptionFields`, for the backbone, and
      `layers.Network`.
  """

  use_coarse_mask: bool = True
  input_mean: Sequence[float] = (0.0,)
  input_std: Sequence[float] = (1.0,)
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, images, coarse_mask=None, *, train):
    """Classifies windowed CT given a coarse mask.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      coarse_mask: (B, H, W, 1), 0 and 1 or probabilities; not read where
        `use_coarse_mask` is False.
      train: batch statistics and dropout on.

    Returns:
      logits (B,) float32 of malignancy, and taps. `cam` (B, H', W') is the
      class activation map (Zhou et al., 2016): its mean plus the classifier's
      bias is the logit.
    """
    x = layers.InputScale(self.input_mean, self.input_std)(images)
    if self.use_coarse_mask:
      x = jnp.concatenate([x, coarse_mask.astype(x.dtype)], -1)
    x, taps = xception.Xception(
      **layers.fields_of(self, xception.XceptionFields),
      norm=self.batch_norm(train=train),
      name='backbone',
    )(x)
    if self.dropout_rate:
      # Of whole channels: the mean over the pixels would see through less.
      x = nn.Dropout(
        self.dropout_rate, broadcast_dims=(1, 2), deterministic=not train
      )(x)
    # The map first, its mean after: both are linear, so the order does not
    # change the logit, and the map comes for free.
    x = layers.Conv(1, use_bias=False, name='classifier')(x)
    taps['cam'] = x[..., 0]
    bias = self.param('bias', nn.initializers.zeros_init(), ())
    return jnp.mean(taps['cam'], (1, 2)) + bias, taps


def average_fourth_channel(params):
  """Class-net parameters whose mask channel is the mean of the other three.

  The paper's start for the fourth input channel (section 3.2.4).

  Args:
    params: the `params` collection of a `ClassNet` that uses the mask.

  Returns:
    A new tree that shares every other leaf.
  """
  backbone = params['backbone']
  image = backbone['conv1']['kernel'][:, :, :3]
  kernel = jnp.concatenate([image, image.mean(2, keepdims=True)], 2)
  return {**params, 'backbone': {**backbone, 'conv1': {'kernel': kernel}}}
