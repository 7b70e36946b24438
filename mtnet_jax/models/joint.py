"""MT-Net's three networks as one, to be trained through their masks."""

from flax import linen as nn
import jax


class JointNet(nn.Module):
  """The three networks in one, the coarse mask a soft one.

  Probabilities are passed, so that the gradients of Class-net and Fine Seg-net
  reach Coarse Seg-net through its mask.

  Attributes:
    coarse_net, class_net, fine_net: `mtnet.CoarseSegNet`, `ClassNet` and
      `FineSegNet`. Their variables are those that each has by itself, under
      these names.
  """

  coarse_net: nn.Module
  class_net: nn.Module
  fine_net: nn.Module

  def __call__(self, images, *, train):
    """Segments, coarsely and finely, and classifies windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      train: batch statistics and dropout on.

    Returns:
      {'coarse': (B, H, W, 1), 'fine': (B, H, W, 1), 'class': (B,)} logits,
      float32, and taps: the class activation map as `cam` (B, H', W').
    """
    coarse, _ = self.coarse_net(images, train=train)
    mask = jax.nn.sigmoid(coarse)
    malignant, taps = self.class_net(images, mask, train=train)
    fine, _ = self.fine_net(images, mask, train=train)
    logits = {'coarse': coarse, 'fine': fine, 'class': malignant}
    return logits, {'cam': taps['cam']}


def joined(variables):
  """Variables of a `JointNet` from those of its networks.

  Args:
    variables: 'coarse', 'class' and 'fine' -> {'params', 'batch_stats'}.
  """
  return {
    collection: {
      f'{name}_net': tree[collection] for name, tree in variables.items()
    }
    for collection in ('params', 'batch_stats')
  }
