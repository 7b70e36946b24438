"""Sizes of a mask in millimetres."""

import numpy as np

_EDGE_MIDPOINTS = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])


def diameter_mm(pixels, pixel_spacing_mm):
  """The largest distance across a mask (maximum Feret diameter).

  Measured between the midpoints of the pixels' edges, where an outline at
  half height runs, as scikit-image's `feret_diameter_max` does: one pixel is
  one pixel wide.

  Args:
    pixels: (n, 2) row and column of each; n may be 0.
    pixel_spacing_mm: in both directions.

  Returns:
    mm; 0 without a pixel.
  """
  if not len(pixels):
    return 0.0
  # What lies between two pixels of its row is no corner of the outline.
  by_row = pixels[np.lexsort((pixels[:, 1], pixels[:, 0]))]
  changes = np.diff(by_row[:, 0]) != 0
  ends = by_row[np.append(changes, True) | np.append(True, changes)]
  outline = (ends[:, None] + _EDGE_MIDPOINTS).reshape(-1, 2)
  distances = np.linalg.norm(outline[:, None] - outline, axis=-1)
  return float(distances.max() * pixel_spacing_mm)


def volume_mm3(areas_px, thickness_mm, pixel_spacing_mm):
  """Volume of a stack of masks.

  Args:
    areas_px: pixels on each slice.
    thickness_mm: of each of these slices: half the way to the slice below
      plus half the way to the one above.
    pixel_spacing_mm: in both directions.
  """
  return float(np.dot(areas_px, thickness_mm) * pixel_spacing_mm**2)
