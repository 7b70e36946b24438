"""Measures a nodule's mask: diameter, area and volume."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

if TYPE_CHECKING:
  from mtnet_jax.ct import follow
  from mtnet_jax.ct import volume as ct_volume

_EDGE_MIDPOINTS = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])


def measure(
  nodule: 'follow.Nodule', volume: 'ct_volume.Volume', k: int
) -> dict[str, Any]:
  """Measures the mask of a nodule.

  Slices whose mask is no outline are not measured. If the point's own slice is
  among them, the mask has no sizes. If another slice is, or if the mask is cut
  off, the volume is a lower bound. A mask that runs away has no volume.

  Args:
    nodule: the nodule.
    volume: the CT.
    k: the slice of the point.

  Returns:
    'mask' of a record, see `fields.FIELDS`.
  """
  slices = sorted(nodule.pixels)
  sizes: dict[str, Any] = {
    'diameter_mm': None,
    'area_mm2': None,
    'volume_mm3': None,
    'volume_is_lower_bound': None,
    'slices': len(slices),
    'unmeasured_slices': sorted(nodule.leaks),
    'lowest_slice': slices[0] if slices else None,
    'highest_slice': slices[-1] if slices else None,
  }
  if not slices or k in nodule.leaks:
    return sizes
  spacing_mm = volume.pixel_spacing_mm
  sizes['diameter_mm'] = diameter_mm(nodule.pixels[k], spacing_mm)
  sizes['area_mm2'] = len(nodule.pixels[k]) * spacing_mm**2
  if nodule.runs_away:
    return sizes
  measured = [k for k in slices if k not in nodule.leaks]
  areas_px = [len(nodule.pixels[k]) for k in measured]
  thickness_mm = volume.thickness_mm(measured)
  return {
    **sizes,
    'volume_mm3': volume_mm3(areas_px, thickness_mm, spacing_mm),
    'volume_is_lower_bound': bool(
      nodule.leaks or nodule.cut_off or nodule.missing
    ),
  }


def diameter_text(mask: Mapping[str, Any]) -> str:
  """Formats the diameter of `measure`'s result: '12.3 mm', or why none."""
  if mask['diameter_mm'] is None:
    return 'not measured' if mask['slices'] else 'no mask'
  return f'{mask["diameter_mm"]:.1f} mm'


def volume_text(mask: Mapping[str, Any], unit: str) -> str:
  """Formats the volume: '1234 mm3', '>1234 mm3' for a lower bound, or '-'."""
  if mask['volume_mm3'] is None:
    return '-'
  bound = '>' if mask['volume_is_lower_bound'] else ''
  return f'{bound}{mask["volume_mm3"]:.0f} {unit}'


def diameter_mm(pixels: np.ndarray, pixel_spacing_mm: float) -> float:
  """The largest distance across a mask (maximum Feret diameter), in mm.

  It is measured between the midpoints of the pixels' edges, where a contour at
  level 0.5 runs, as by scikit-image's `feret_diameter_max`. A single pixel is
  one pixel wide.

  Args:
    pixels: (n, 2) row and column of each pixel; n may be 0.
    pixel_spacing_mm: in both directions.

  Returns:
    The diameter; 0 for no pixel.
  """
  if not len(pixels):
    return 0.0
  # Only the first and the last pixel of a row can be ends of the diameter.
  by_row = pixels[np.lexsort((pixels[:, 1], pixels[:, 0]))]
  changes = np.diff(by_row[:, 0]) != 0
  ends = by_row[np.append(changes, True) | np.append(True, changes)]
  outline = (ends[:, None] + _EDGE_MIDPOINTS).reshape(-1, 2)
  distances = np.linalg.norm(outline[:, None] - outline, axis=-1)
  return float(distances.max() * pixel_spacing_mm)


def volume_mm3(
  areas_px: Sequence[int],
  thickness_mm: np.ndarray | Sequence[float],
  pixel_spacing_mm: float,
) -> float:
  """The volume of a stack of masks, in mm³.

  Args:
    areas_px: number of pixels on each slice.
    thickness_mm: thickness of each slice, from `volume.Volume.thickness_mm`.
    pixel_spacing_mm: in both directions.
  """
  return float(np.dot(areas_px, thickness_mm) * pixel_spacing_mm**2)
