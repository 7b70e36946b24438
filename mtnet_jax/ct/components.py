"""Connected components of a mask, and which of them is the nodule."""

import numpy as np
from scipy import ndimage

from mtnet_jax.ct import views
from mtnet_jax.ct import volume as ct_volume

# A component farther from the point than this does not belong to the point.
MAX_DISTANCE_MM = 10.0
# A patch is not cut again if its centre is this close to the mask's centre.
_MAX_OFFSET_PX = 1
_WITH_DIAGONALS = np.ones((3, 3))


def centre(k: int, pixels: np.ndarray) -> views.Voxel:
  """The (slice, row, column) of a mask's centre.

  Args:
    k: the mask's slice.
    pixels: (n, 2) row and column of the mask's pixels.
  """
  row, col = np.rint(pixels.mean(axis=0)).astype(int).tolist()
  return k, row, col


def is_off_centre(voxel: views.Voxel, pixels: np.ndarray) -> bool:
  """Whether a mask's centre differs from the centre of its patch.

  Args:
    voxel: (slice, row, column) of the patch's centre.
    pixels: (n, 2) row and column of the mask's pixels.
  """
  difference = np.subtract(centre(voxel[0], pixels), voxel)
  return bool(np.abs(difference).max() > _MAX_OFFSET_PX)


def to_pixels(view: views.View, mask: np.ndarray) -> np.ndarray:
  """Converts a (64, 64) mask of the patch to (n, 2) pixels of the slice."""
  return np.argwhere(mask) + _corner(view)


def to_mask(view: views.View, pixels: np.ndarray) -> np.ndarray:
  """Converts (n, 2) pixels of the slice to a (64, 64) mask of the patch."""
  mask = np.zeros_like(view.fine)
  inside = _within(view, pixels)
  mask[tuple(inside.T)] = True
  return mask


def _within(view: views.View, pixels: np.ndarray) -> np.ndarray:
  """The pixels of the slice that lie in the patch, in the patch's indices."""
  inside = pixels - _corner(view)
  return inside[((inside >= 0) & (inside < len(view.fine))).all(axis=1)]


def _corner(view: views.View) -> np.ndarray:
  """The (row, column) of the patch's first pixel."""
  return np.subtract(view.voxel[1:], len(view.fine) // 2)


def touches_edge(mask: np.ndarray) -> bool:
  """Whether a (64, 64) mask has pixels at the edge of its patch."""
  return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _components(view: views.View, volume: ct_volume.Volume) -> np.ndarray:
  """(64, 64) labels of the fine mask's components on the slice; 0 is none."""
  _, row, col = view.voxel
  return ndimage.label(view.fine & volume.inside(row, col), _WITH_DIAGONALS)[0]


def nearest(
  view: views.View, volume: ct_volume.Volume
) -> tuple[np.ndarray, str | None]:
  """The component that holds the centre of the patch or comes nearest to it.

  Args:
    view: of the patch.
    volume: the CT.

  Returns:
    (64, 64) bool, empty if no component is near enough; and a note for the
    user, or None.
  """
  labels = _components(view, volume)
  marked = np.argwhere(labels)
  if not len(marked):
    return labels > 0, 'the networks mark nothing there'
  middle = len(labels) // 2
  distances = np.hypot(*(marked - middle).T) * volume.pixel_spacing_mm
  nearest = int(distances.argmin())
  if distances[nearest] > MAX_DISTANCE_MM:
    return labels < 0, (
      f'the networks mark nothing within {MAX_DISTANCE_MM:g} mm of the point'
    )
  note = None
  if distances[nearest]:
    note = f'the mask is {distances[nearest]:.1f} mm from the point'
  return labels == labels[tuple(marked[nearest])], note


def overlapping(
  view: views.View, neighbour_pixels: np.ndarray, volume: ct_volume.Volume
) -> np.ndarray:
  """The component that shares most pixels with the mask of another view.

  Args:
    view: of a patch.
    neighbour_pixels: (n, 2) pixels of the mask on the neighbouring slice, or of
      the same slice in an earlier view.
    volume: the CT.

  Returns:
    (64, 64) bool; empty if no component shares a pixel.
  """
  labels = _components(view, volume)
  shared = np.bincount(
    labels[tuple(_within(view, neighbour_pixels).T)], minlength=1
  )
  shared[0] = 0
  return labels == shared.argmax() if shared.any() else labels < 0
