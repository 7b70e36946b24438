"""Turns the readers' masks of a nodule into its 64x64 patch.

Real CT and phantoms share this module: both need the slice, the centre, the
votes and the consensus, and differ only in where the HU come from.
"""

import dataclasses
import math

import numpy as np

from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import selection

PATCH_SIZE = 64
AIR_HU = -1024  # fills a patch outside the slice


@dataclasses.dataclass(frozen=True)
class Patch:
  """One nodule on one slice.

  Attributes:
    slice_index: 0 is the lowest z of the scan.
    row: of the centre, which is the rounded centroid of the pixels that any
      reader marked on the slice, and pixel (size/2, size/2) of the patch.
    col: of the centre.
    reader_masks: (num_readers, size, size) bool.
    votes: (size, size) uint8, how many readers marked the pixel.
    mask: (size, size) bool, the consensus.
    scale: pixels of the slice per pixel of the patch; 1 unless resampled.
  """

  slice_index: int
  row: int
  col: int
  reader_masks: np.ndarray
  votes: np.ndarray
  mask: np.ndarray
  scale: float = 1.0


def consensus_mask(
  votes: np.ndarray, num_readers: int, consensus: tuple[int, int]
) -> np.ndarray:
  """Computes where enough readers agree: votes / num_readers >= num / den.

  Args:
    votes: number of readers who marked each pixel, integers of any shape.
    num_readers: number of readers who marked the nodule.
    consensus: (num, den) as integers, so that 2 of 3 readers are exactly 2/3.

  Returns:
    bool, the shape of `votes`.
  """
  num, den = consensus
  return den * votes.astype(np.int64) >= num * num_readers


def cut(
  plane: np.ndarray, row: int, col: int, fill: int, size: int = PATCH_SIZE
) -> np.ndarray:
  """Cuts rows row-size/2 to row+size/2-1, and columns likewise.

  Args:
    plane: (..., rows, cols).
    row: of the centre; may lie outside the plane.
    col: of the centre; may lie outside the plane.
    fill: value outside the plane.
    size: side of the patch, even.

  Returns:
    (..., size, size), a copy with the dtype of `plane`.
  """
  patch = np.full((*plane.shape[:-2], size, size), fill, plane.dtype)
  top, left = row - size // 2, col - size // 2
  rows, cols = plane.shape[-2:]
  inside = plane[
    ...,
    max(top, 0) : max(min(top + size, rows), 0),
    max(left, 0) : max(min(left + size, cols), 0),
  ]
  height, width = inside.shape[-2:]
  if height and width:
    down, across = max(-top, 0), max(-left, 0)
    patch[..., down : down + height, across : across + width] = inside
  return patch


def cut_image(hu: np.ndarray, patch: Patch) -> np.ndarray:
  """Cuts the attenuation of a patch out of its slice.

  Args:
    hu: (rows, cols) int16, the slice.
    patch: where to cut.

  Returns:
    (size, size) int16, HU; -1024 outside the slice.
  """
  size = len(patch.mask)
  if patch.scale == 1:
    return cut(hu, patch.row, patch.col, fill=AIR_HU, size=size)
  wide = cut(
    hu, patch.row, patch.col, fill=AIR_HU, size=_reach(size, patch.scale)
  )
  return np.rint(_resample(wide, patch.scale, size)).astype(np.int16)


def _reach(size: int, scale: float) -> int:
  """Returns the side of `_resample`'s input, in pixels of the slice."""
  return 2 * math.ceil(size / 2 * scale + max(scale, 1))


def _resample(plane: np.ndarray, scale: float, size: int) -> np.ndarray:
  """Resamples linearly about the centre pixel; averages when it shrinks.

  Args:
    plane: (..., n, n); pixel n/2 becomes pixel size/2.
    scale: pixels of `plane` per pixel of the result.
    size: side of the result.

  Returns:
    (..., size, size) float64.
  """
  n = plane.shape[-1]
  at = (np.arange(size) - size // 2) * scale + n // 2
  distance = np.abs(at[:, None] - np.arange(n)) / max(scale, 1)
  weights = np.clip(1 - distance, 0, None)
  weights /= weights.sum(axis=1, keepdims=True)
  return weights @ plane @ weights.T


def place(
  readers: annotations.ReaderMasks,
  consensus: tuple[int, int],
  size: int = PATCH_SIZE,
  *,
  scale: float = 1.0,
) -> Patch | None:
  """Chooses the slice and the centre of a nodule's patch, and cuts the masks.

  The slice is the one with the largest consensus area; if several are equal,
  the lowest of them.

  Args:
    readers: the readers' masks.
    consensus: see `consensus_mask`.
    size: side of the patch in pixels.
    scale: pixels of the slice per pixel of the patch.

  Returns:
    The patch, or None if no pixel in it reaches the consensus.
  """
  areas = _consensus_areas(readers, consensus)
  if not areas.any():
    return None
  # `argmax` returns the first of equal areas.
  return _place_on(int(areas.argmax()), readers, consensus, size, scale)


def place_all(
  readers: annotations.ReaderMasks,
  consensus: tuple[int, int],
  size: int = PATCH_SIZE,
  *,
  scale: float = 1.0,
) -> list[Patch]:
  """Like `place`, for every slice on which a pixel reaches the consensus."""
  areas = _consensus_areas(readers, consensus)
  placed = [
    _place_on(int(k), readers, consensus, size, scale)
    for k in np.flatnonzero(areas)
  ]
  return [patch for patch in placed if patch is not None]


def _consensus_areas(
  readers: annotations.ReaderMasks, consensus: tuple[int, int]
) -> np.ndarray:
  """Returns the consensus area of each slice: (slices,), pixels."""
  votes = readers.masks.sum(axis=0, dtype=np.uint8)  # (slices, rows, cols)
  return consensus_mask(votes, len(readers.masks), consensus).sum(axis=(1, 2))


def _place_on(
  k: int,
  readers: annotations.ReaderMasks,
  consensus: tuple[int, int],
  size: int,
  scale: float,
) -> Patch | None:
  first_slice, first_row, first_col = readers.origin
  rows, cols = np.nonzero(readers.masks[:, k].any(axis=0))
  # In the coordinates of the slice, as halves round to the even row or column.
  row = int(np.rint((rows + first_row).mean()))
  col = int(np.rint((cols + first_col).mean()))
  masks = cut(
    readers.masks[:, k],
    row - first_row,
    col - first_col,
    fill=False,
    size=size if scale == 1 else _reach(size, scale),
  )
  if scale != 1:
    masks = _resample(masks.astype(float), scale, size) >= 0.5
  votes = masks.sum(axis=0, dtype=np.uint8)
  mask = consensus_mask(votes, len(masks), consensus)
  if not mask.any():
    return None
  return Patch(first_slice + k, row, col, masks, votes, mask, scale)


def place_nodule(
  nodule: selection.Nodule, policy: selection.Policy
) -> list[Patch]:
  """Returns the patches of a nodule under a policy; none without consensus."""
  readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
  scale = (policy.spacing_mm or nodule.pixel_spacing_mm) / (
    nodule.pixel_spacing_mm
  )
  if policy.slices == 'all':
    return place_all(readers, policy.consensus, scale=scale)
  patch = place(readers, policy.consensus, scale=scale)
  return [] if patch is None else [patch]
