"""Layers of the PyTorch networks: batch norm, input range, resizing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class BatchNorm(nn.BatchNorm2d):
  """Batch norm without `num_batches_tracked`.

  The public weights are older than this counter, which only a cumulative
  average (`momentum=None`) needs.
  """

  def __init__(self, features: int):
    super().__init__(features)
    self.num_batches_tracked = None

  def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
    # `nn.BatchNorm2d` would add the missing counter to old state dicts.
    nn.Module._load_from_state_dict(self, *args, **kwargs)


def set_batch_norms(net: nn.Module, *, epsilon: float, momentum: float) -> None:
  """Sets the constants of all batch norms of a network.

  Args:
    net: network; its batch norms are changed in place.
    epsilon: added to the variance.
    momentum: weight of the old value in the running averages.
  """
  for module in net.modules():
    if isinstance(module, BatchNorm):
      module.eps = epsilon
      # PyTorch's momentum is the weight of the new value.
      module.momentum = 1 - momentum


class InputScale(nn.Module):
  """(x - mean) / std per channel, to the range the weights were trained on.

  The constants are not part of the state dict.
  """

  mean: torch.Tensor
  std: torch.Tensor

  def __init__(self, mean: Sequence[float], std: Sequence[float]):
    super().__init__()
    for name, values in (('mean', mean), ('std', std)):
      # On the CPU even if `torch.device('meta')` is active: no file of weights
      # would fill these buffers.
      constants = torch.tensor(values, dtype=torch.float32, device='cpu')
      self.register_buffer(name, constants[:, None, None], persistent=False)

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    """Scales (B, C, H, W) images."""
    return (images - self.mean) / self.std


def resize(maps: torch.Tensor, size_hw: Sequence[int]) -> torch.Tensor:
  """Resizes (B, C, H, W) bilinearly, with antialiasing if the size shrinks.

  Pixels are areas, as with `align_corners=False`. Two matrix products compute
  it, because all export formats support them.
  """
  rows, columns = (
    _triangles(n, out_n, maps)
    for n, out_n in zip(maps.shape[2:], size_hw, strict=True)
  )
  return rows @ maps @ columns.mT


def _triangles(size: int, out_size: int, like: torch.Tensor) -> torch.Tensor:
  """Returns (out_size, size) weights of a triangular (linear) filter."""
  pixels = torch.arange(size, dtype=torch.float64)
  scale = size / out_size
  at = (torch.arange(out_size, dtype=torch.float64) + 0.5) * scale - 0.5
  distances = (at[:, None] - pixels).abs() / max(scale, 1.0)
  weights = (1 - distances).clamp(min=0)
  return (weights / weights.sum(1, keepdim=True)).to(like)
