"""MT-Net's three networks as one network, for joint fine-tuning."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax


class JointNet(nn.Module):
  """The three networks of MT-Net, connected by a soft coarse mask.

  The mask consists of probabilities, so that the gradients of Class-net and
  Fine Seg-net reach Coarse Seg-net through it.

  Each network keeps its own variables, under the name of its field.

  Attributes:
    coarse_net: `mtnet.CoarseSegNet`, which predicts the coarse mask.
    class_net: `mtnet.ClassNet`, which receives the coarse mask.
    fine_net: `mtnet.FineSegNet`, which receives the coarse mask.
  """

  coarse_net: nn.Module
  class_net: nn.Module
  fine_net: nn.Module

  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Segments (coarsely and finely) and classifies windowed CT.

    Args:
      images: (B, H, W, 3) in [-1, 1].
      train: whether to use batch statistics and dropout.

    Returns:
      A dict of float32 logits, 'coarse' and 'fine' (B, H, W, 1) and 'class'
      (B,), and the taps: `cam` (B, H', W') is the class activation map.
    """
    coarse, _ = self.coarse_net(images, train=train)
    mask = jax.nn.sigmoid(coarse)
    malignant, taps = self.class_net(images, mask, train=train)
    fine, _ = self.fine_net(images, mask, train=train)
    logits = {'coarse': coarse, 'fine': fine, 'class': malignant}
    return logits, {'cam': taps['cam']}


def joined(
  variables: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
  """Makes the variables of a `JointNet` from those of its networks.

  Args:
    variables: 'coarse', 'class' and 'fine' -> {'params', 'batch_stats'}.

  Returns:
    {'params', 'batch_stats'} of the `JointNet`.
  """
  return {
    collection: {
      f'{name}_net': tree[collection] for name, tree in variables.items()
    }
    for collection in ('params', 'batch_stats')
  }
