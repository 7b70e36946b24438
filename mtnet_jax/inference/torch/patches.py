"""Turns HU patches into images for the networks, and maps back into patches."""

from collections.abc import Sequence

import torch

from mtnet_jax.inference.torch import layers

NUM_SYMMETRIES = 8


def plain_images(
  hu: torch.Tensor, *, size: int, window: Sequence[float]
) -> torch.Tensor:
  """Resizes and windows patches to images for the networks.

  Args:
    hu: (B, P, P).
    size: S, side of the networks' input.
    window: (low, high) HU, mapped to -1 and 1.

  Returns:
    (B, 3, S, S) in [-1, 1], three equal channels.
  """
  low, high = window
  matrix = _bilinear(hu.shape[1], size, hu)
  images = (matrix @ hu @ matrix.mT - low) / (high - low)
  images = images.clamp(0, 1) * 2 - 1
  return images[:, None].expand(-1, 3, -1, -1)


def _bilinear(size: int, out_size: int, like: torch.Tensor) -> torch.Tensor:
  """Returns (out_size, size) weights of sampling, with edge padding."""
  steps = torch.arange(out_size, dtype=torch.float64) - (out_size - 1) / 2
  positions = (size - 1) / 2 + steps * size / out_size
  distances = positions.clamp(0, size - 1)[:, None] - torch.arange(size)
  return (1 - distances.abs()).clamp(min=0).to(like)


def to_patch_grid(maps: torch.Tensor, size: int) -> torch.Tensor:
  """Resizes maps (B, S, S) to the patch's own pixels (B, size, size)."""
  return layers.resize(maps[:, None], (size, size))[:, 0]


def resample(
  maps: torch.Tensor, scale: torch.Tensor, *, outside: float | None = None
) -> torch.Tensor:
  """Resamples maps linearly about their centre, each by its own factor.

  Pixel P/2 stays where it is. Shrinking is antialiased.

  Args:
    maps: (B, P, P).
    scale: (B,) pixels of the maps per pixel of the result.
    outside: value of result pixels whose centre lies outside the map; None
      repeats the border.

  Returns:
    (B, P, P).
  """
  size = maps.shape[1]
  pixels = torch.arange(size, device=maps.device).to(maps.dtype)
  positions = (pixels - size // 2) * scale[:, None] + size // 2  # (B, P)
  distances = positions.clamp(0, size - 1)[..., None] - pixels
  width = scale.clamp(min=1.0)[:, None, None]
  weights = (1 - distances.abs() / width).clamp(min=0)
  weights = weights / weights.sum(-1, keepdim=True)
  resampled = weights @ maps @ weights.mT
  if outside is None:
    return resampled
  inside = (positions >= -0.5) & (positions <= size - 0.5)
  inside = inside.to(maps.dtype)
  inside = inside[:, :, None] * inside[:, None, :]
  return inside * resampled + (1 - inside) * outside


def symmetries(maps: torch.Tensor) -> torch.Tensor:
  """Rotates and reflects (B, P, P) to (8 B, P, P), the originals first."""
  return torch.cat(
    [
      torch.rot90(mirrored, quarter_turns, (1, 2))
      for mirrored in (maps, maps.flip(2))
      for quarter_turns in range(4)
    ]
  )


def undo_symmetries(maps: torch.Tensor) -> torch.Tensor:
  """Inverts `symmetries`: (8 B, P, P) to (8, B, P, P), all upright."""
  views = maps.unflatten(0, (NUM_SYMMETRIES, -1))
  upright = [
    torch.rot90(views[i], -(i % 4), (1, 2)) for i in range(NUM_SYMMETRIES)
  ]
  return torch.stack([*upright[:4], *(x.flip(2) for x in upright[4:])])
