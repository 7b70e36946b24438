"""How large a nodule's mask is, and where it has no size."""

import numpy as np

_EDGE_MIDPOINTS = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])


def measure(nodule, volume, k):
  """The sizes of a mask.

  A slice whose mask is no outline counts for no size. Where that is the point's
  own slice, the mask has none at all; elsewhere its volume is a lower bound, as
  it is where the mask is cut off. One that runs away has no volume.

  Args:
    nodule: `follow.Nodule`.
    volume: `volume.Volume`.
    k: the slice of the point.

  Returns:
    'mask' of a record, see `fields.FIELDS`.
  """
  slices = sorted(nodule.pixels)
  sizes = {
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
  counted = [k for k in slices if k not in nodule.leaks]
  areas = [len(nodule.pixels[k]) for k in counted]
  thickness_mm = volume.thickness_mm(counted)
  return {
    **sizes,
    'volume_mm3': volume_mm3(areas, thickness_mm, spacing_mm),
    'volume_is_lower_bound': bool(
      nodule.leaks or nodule.cut_off or nodule.missing
    ),
  }


def diameter_text(mask):
  """'12.3 mm', or that there is none; `mask` is of `measure`."""
  if mask['diameter_mm'] is None:
    return 'not measured' if mask['slices'] else 'no mask'
  return f'{mask["diameter_mm"]:.1f} mm'


def volume_text(mask, unit):
  """'1234 mm3', '>1234 mm3' for a lower bound, or '-'."""
  if mask['volume_mm3'] is None:
    return '-'
  bound = '>' if mask['volume_is_lower_bound'] else ''
  return f'{bound}{mask["volume_mm3"]:.0f} {unit}'


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
  # Only the first and the last pixel of a row can be corners of the outline.
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
