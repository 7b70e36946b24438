"""Sizes of a mask in millimetres."""

import numpy as np
from scipy import spatial

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
  outline = (pixels[:, None] + _EDGE_MIDPOINTS).reshape(-1, 2)
  hull = outline[spatial.ConvexHull(outline).vertices]
  return float(spatial.distance.pdist(hull).max() * pixel_spacing_mm)


def volume_mm3(areas_px, thickness_mm, pixel_spacing_mm):
  """Volume of a stack of masks.

  Args:
    areas_px: pixels on each slice.
    thickness_mm: of each of these slices: half the way to the slice below
      plus half the way to the one above.
    pixel_spacing_mm: in both directions.
  """
  return float(np.dot(areas_px, thickness_mm) * pixel_spacing_mm**2)
