"""HU patches to images for the networks, and their maps back to the patches."""

import torch

from mtnet_jax.inference.torch import layers

NUM_SYMMETRIES = 8


def plain_images(hu, *, size, window):
  """Patches as the networks see them.

  Args:
    hu: (B, P, P).
    size: S, side of the networks' input.
    window: (low, high) HU that become -1 and 1.

  Returns:
    (B, 3, S, S) in [-1, 1], three equal channels.
  """
  low, high = window
  matrix = _bilinear(hu.shape[1], size, hu)
  images = (matrix @ hu @ matrix.mT - low) / (high - low)
  images = images.clamp(0, 1) * 2 - 1
  return images[:, None].expand(-1, 3, -1, -1)


def _bilinear(size, out_size, like):
  """(out_size, size) weights of sampling; the border pixel repeats."""
  steps = torch.arange(out_size, dtype=torch.float64) - (out_size - 1) / 2
  at = (size - 1) / 2 + steps * size / out_size
  distances = at.clamp(0, size - 1)[:, None] - torch.arange(size)
  return (1 - distances.abs()).clamp(min=0).to(like)


def to_patch_grid(maps, size):
  """Maps (B, S, S) on the patch's own pixels (B, size, size)."""
  return layers.resize(maps[:, None], (size, size))[:, 0]


def resample(maps, scale, *, outside=None):
  """Resamples maps about their middle, each by a factor of its own.

  Linear about pixel P/2, averaging where it shrinks.

  Args:
    maps: (B, P, P).
    scale: (B,) pixels of the maps per pixel of the result.
    outside: what a result's pixel is whose centre lies beyond the map; None
      repeats the border.

  Returns:
    (B, P, P).
  """
  size = maps.shape[1]
  pixels = torch.arange(size, device=maps.device).to(maps.dtype)
  at = (pixels - size // 2) * scale[:, None] + size // 2  # (B, P)
  distances = at.clamp(0, size - 1)[..., None] - pixels
  width = scale.clamp(min=1.0)[:, None, None]
  weights = (1 - distances.abs() / width).clamp(min=0)
  weights = weights / weights.sum(-1, keepdim=True)
  resampled = weights @ maps @ weights.mT
  if outside is None:
    return resampled
  inside = ((at >= -0.5) & (at <= size - 0.5)).to(maps.dtype)
  inside = inside[:, :, None] * inside[:, None, :]
  return inside * resampled + (1 - inside) * outside


def symmetries(maps):
  """Rotations and reflections of (B, P, P): (8 B, P, P), plain ones first."""
  return torch.cat(
    [
      torch.rot90(mirrored, quarter_turns, (1, 2))
      for mirrored in (maps, maps.flip(2))
      for quarter_turns in range(4)
    ]
  )


def turned_back(maps):
  """Maps of `symmetries`, (8 B, P, P), turned back: (8, B, P, P)."""
  turned = maps.unflatten(0, (NUM_SYMMETRIES, -1))
  back = [
    torch.rot90(turned[i], -(i % 4), (1, 2)) for i in range(NUM_SYMMETRIES)
  ]
  return torch.stack([*back[:4], *(x.flip(2) for x in back[4:])])
