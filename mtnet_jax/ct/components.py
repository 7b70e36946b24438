"""Connected components of a mask: which one is the nodule's."""

import numpy as np
from scipy import ndimage

# A mask farther from the point than this is not the one that the point means.
MAX_MISS_MM = 10.0
# A patch whose centre is within this distance of the mask's is not cut again.
_OFF_PX = 1
_DIAGONAL_TOO = np.ones((3, 3))


def centre(k, pixels):
  """(slice, row, column) of the middle of a mask."""
  row, col = np.rint(pixels.mean(axis=0)).astype(int).tolist()
  return k, row, col


def is_off(voxel, pixels):
  """Whether a mask's middle is not the middle of the patch."""
  difference = np.subtract(centre(voxel[0], pixels), voxel)
  return bool(np.abs(difference).max() > _OFF_PX)


def pixels_of(view, found):
  """A mask of the patch as (n, 2) pixels of the slice."""
  return np.argwhere(found) + _corner(view)


def mask_of(view, pixels):
  """(n, 2) pixels of the slice as a (64, 64) mask of the patch."""
  found = np.zeros_like(view.fine)
  at = _within(view, pixels)
  found[tuple(at.T)] = True
  return found


def _within(view, pixels):
  """Of (n, 2) pixels of the slice those in the patch, as (m, 2) of its own."""
  at = pixels - _corner(view)
  return at[((at >= 0) & (at < len(view.fine))).all(axis=1)]


def _corner(view):
  """(row, column) of the patch's first pixel."""
  return np.subtract(view.voxel[1:], len(view.fine) // 2)


def is_at_edge(found):
  return bool(found[[0, -1]].any() or found[:, [0, -1]].any())


def _components(view, volume):
  """(64, 64) labels of the mask's components on the slice; 0 is outside."""
  _, row, col = view.voxel
  return ndimage.label(view.fine & volume.inside(row, col), _DIAGONAL_TOO)[0]


def nearest(view, volume):
  """The component that holds the centre of the patch, or comes nearest.

  Returns:
    (64, 64) bool, and what to note, or None.
  """
  labels = _components(view, volume)
  marked = np.argwhere(labels)
  if not len(marked):
    return labels > 0, 'the networks mark nothing there'
  middle = len(labels) // 2
  distances = np.hypot(*(marked - middle).T) * volume.pixel_spacing_mm
  nearest = int(distances.argmin())
  if distances[nearest] > MAX_MISS_MM:
    return labels < 0, (
      f'the networks mark nothing within {MAX_MISS_MM:g} mm of the point'
    )
  note = None
  if distances[nearest]:
    note = f'the mask is {distances[nearest]:.1f} mm from the point'
  return labels == labels[tuple(marked[nearest])], note


def overlapping(view, before, volume):
  """The component that shares most pixels with a mask of the slice beside.

  Args:
    view: of a patch.
    before: (n, 2) pixels of the slice beside.
    volume: `volume.Volume`.

  Returns:
    (64, 64) bool; empty where none shares any.
  """
  labels = _components(view, volume)
  shared = np.bincount(labels[tuple(_within(view, before).T)], minlength=1)
  shared[0] = 0
  return labels == shared.argmax() if shared.any() else labels < 0
