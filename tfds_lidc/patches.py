"""From the readers' masks of a nodule to its 64x64 patch.

Real CT and phantom share this: both need the slice, the centre, the votes and
the consensus; they differ only in where the HU come from.
"""

import dataclasses

import numpy as np

from tfds_lidc import annotations

PATCH_SIZE = 64
AIR_HU = -1024  # where a patch leaves the slice


@dataclasses.dataclass(frozen=True)
class Patch:
  """One nodule on one slice.

  Attributes:
    slice_index: 0 is the lowest z of the scan.
    row, col: centre in the slice: the rounded centroid of the pixels that any
      reader marked. It is pixel (size/2, size/2) of the patch.
    reader_masks: (num_readers, size, size) bool.
    votes: (size, size) uint8, how many readers marked the pixel.
    mask: (size, size) bool, the consensus.
  """

  slice_index: int
  row: int
  col: int
  reader_masks: np.ndarray
  votes: np.ndarray
  mask: np.ndarray


def consensus_mask(
  votes: np.ndarray, num_readers: int, consensus: tuple[int, int]
) -> np.ndarray:
  """Where enough readers agree: votes / num_readers >= num / den.

  Args:
    votes: how many readers marked each pixel, integers of any shape.
    num_readers: how many could have.
    consensus: (num, den); integers, so that 2 of 3 readers are exactly 2/3.

  Returns:
    bool, the shape of `votes`.
  """
  num, den = consensus
  return den * votes.astype(np.int64) >= num * num_readers


def cut(
  plane: np.ndarray, row: int, col: int, fill: int, size: int = PATCH_SIZE
) -> np.ndarray:
  """Cuts rows row-size/2 .. row+size/2-1 and the same columns.

  Args:
    plane: (..., rows, cols).
    row: centre; may lie outside.
    col: centre; may lie outside.
    fill: value where the patch leaves the plane.
    size: side of the patch, even.

  Returns:
    (..., size, size), a copy, of the dtype of `plane`.
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


def place(
  readers: annotations.ReaderMasks,
  consensus: tuple[int, int],
  size: int = PATCH_SIZE,
) -> Patch | None:
  """Chooses the slice and the centre of a nodule's patch, and cuts the masks.

  The slice is the one with the largest consensus area (the lowest such).

  Args:
    readers: what each reader marked.
    consensus: see `consensus_mask`.
    size: side of the patch in pixels.

  Returns:
    The patch, or None where no pixel in it reaches the consensus.
  """
  num_readers = len(readers.masks)
  votes = readers.masks.sum(axis=0, dtype=np.uint8)  # (slices, rows, cols)
  areas = consensus_mask(votes, num_readers, consensus).sum(axis=(1, 2))
  if not areas.any():
    return None
  k = int(areas.argmax())  # the first of equals
  first_slice, first_row, first_col = readers.origin
  rows, cols = np.nonzero(votes[k])
  # Rounded in the frame of the slice: halves go to the even row or column.
  row = int(np.rint((rows + first_row).mean()))
  col = int(np.rint((cols + first_col).mean()))
  masks = cut(
    readers.masks[:, k], row - first_row, col - first_col, fill=False, size=size
  )
  votes = masks.sum(axis=0, dtype=np.uint8)
  mask = consensus_mask(votes, num_readers, consensus)
  if not mask.any():
    return None
  return Patch(first_slice + k, row, col, masks, votes, mask)
