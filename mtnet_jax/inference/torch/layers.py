"""What the networks in PyTorch share: batch norm, input range, resizing."""

import torch
from torch import nn


class BatchNorm(nn.BatchNorm2d):
  """Batch norm without a counter of batches.

  The public weights are older than PyTorch's `num_batches_tracked`, which only
  a cumulative average (`momentum=None`) would need.
  """

  def __init__(self, features):
    super().__init__(features)
    self.num_batches_tracked = None

  def _load_from_state_dict(self, *args, **kwargs):
    # The parent adds the counter to every state dict of that age.
    nn.Module._load_from_state_dict(self, *args, **kwargs)


def set_batch_norms(net, *, epsilon, momentum):
  """Gives every batch norm of a network the same constants.

  Args:
    net: network.
    epsilon: added to the variance.
    momentum: share of the old average that is kept.
  """
  for module in net.modules():
    if isinstance(module, BatchNorm):
      module.eps = epsilon
      # PyTorch calls the share of the new value so.
      module.momentum = 1 - momentum


class InputScale(nn.Module):
  """(x - mean) / std per channel: the range that the weights were trained on.

  Its constants are no part of the state dict.
  """

  def __init__(self, mean, std):
    super().__init__()
    for name, values in (('mean', mean), ('std', std)):
      # On the CPU, also of a network that is made without memory.
      values = torch.tensor(values, dtype=torch.float32, device='cpu')
      self.register_buffer(name, values[:, None, None], persistent=False)

  def forward(self, images):
    return (images - self.mean) / self.std


def resize(maps, size_hw):
  """Bilinear resizing of (B, C, H, W), averaging where it shrinks.

  Pixels are areas: corners do not lie on corners. As two products of matrices,
  which every format of exported programs has.
  """
  rows, columns = (
    _triangles(n, out_n, maps)
    for n, out_n in zip(maps.shape[2:], size_hw, strict=True)
  )
  return rows @ maps @ columns.mT


def _triangles(size, out_size, like):
  """(out_size, size) weights, by the distance in input or output pixels."""
  pixels = torch.arange(size, dtype=torch.float64)
  scale = size / out_size
  at = (torch.arange(out_size, dtype=torch.float64) + 0.5) * scale - 0.5
  distances = (at[:, None] - pixels).abs() / max(scale, 1.0)
  weights = (1 - distances).clamp(min=0)
  return (weights / weights.sum(1, keepdim=True)).to(like)
