"""Our augmentation for the PyTorch networks of `peers_real`."""

import functools

import jax
import numpy as np
import torch

from mtnet_jax.data import augment


class Views:
  """Views of nodules, the same as those of our networks, as torch tensors.

  Args:
    nodules: the `nodules.Nodules`.
    config: config of the run.
  """

  def __init__(self, nodules, config):
    self._arrays = nodules.arrays()
    self._training = jax.jit(
      functools.partial(
        augment.training_views,
        augmentation=augment.Augmentation(**config.augment),
        size=config.image_size,
        window=tuple(config.window),
      )
    )
    self._plain = jax.jit(
      functools.partial(
        augment.plain_images,
        size=config.image_size,
        window=tuple(config.window),
      )
    )

  def batch(self, order, key):
    """Returns an augmented batch.

    Args:
      order: (B, 2) examples and views, from `feeding.epoch_order`.
      key: random key of the augmentation.

    Returns:
      Images (B, 1, S, S), masks (B, 1, S, S) and labels (B, 1).
    """
    index, view = order.T
    images, masks = self._training(
      jax.random.split(key, len(index)),
      view == 0,
      self._arrays['image'][index],
      self._arrays['mask'][index],
    )
    labels = self._arrays['label'][index].astype(np.float32)
    return (
      _channels_first(images[..., :1]),
      _channels_first(masks),
      torch.from_numpy(labels[:, None]),
    )

  def plain(self, start, stop):
    """Returns patches without augmentation, (B, 1, S, S)."""
    return _channels_first(
      self._plain(self._arrays['image'][start:stop])[..., :1]
    )


def _channels_first(x):
  return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).contiguous()
