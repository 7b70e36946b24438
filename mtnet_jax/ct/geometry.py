"""Finds where the slices of a CT series lie, and refuses unsuitable series.

Only series like those of the training data are accepted: axial slices, stacked
without shear, with square pixels. Others are refused, not resampled.
`tfds_lidc` and `pydicom` are imported where they are needed, because the
networks load without them. Messages quote no text of a header, which could name
the patient.
"""

import collections
import os
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from mtnet_jax.system import errors

if TYPE_CHECKING:
  import pydicom

  from tfds_lidc.ct import series as dicom_series

_Path = str | os.PathLike[str]
# Largest cosine between an axis of the slice and z, and largest slope of a
# stack: 0.001 is 0.06 degrees.
_MAX_TILT = 1e-3
# At most this share of images may be left out because they do not fit.
_MAX_STRAY_SHARE = 0.05
_MAX_SIDE = 1 << 16


def _numbers(*shape, limit):
  """A check that a value has this shape and numbers of at most this size."""

  def check(values):
    values = np.array(values, float)
    # Written so that NaN fails.
    return values.shape == shape and bool((np.abs(values) <= limit).all())

  return check


def _is_side(value):
  return isinstance(value, int) and 0 < value < _MAX_SIDE


# Attribute -> a check of its value. Lengths are in mm, with limits that are
# larger than any body.
_NEEDED = {
  'ImagePositionPatient': _numbers(3, limit=1e5),
  'ImageOrientationPatient': _numbers(6, limit=1.01),
  'PixelSpacing': _numbers(2, limit=1e3),
  'Rows': _is_side,
  'Columns': _is_side,
}
_OPTIONAL = {
  'FrameOfReferenceUID': lambda uid: isinstance(uid, str),
  'ImageType': lambda values: len(values) < 100,
  'SliceThickness': _numbers(limit=1e3),
}


def by_position(series: 'dicom_series.Series') -> list[list[str]]:
  """Groups the files of a series with slices by position, from the lowest z.

  Returns:
    A list of paths per position, the lowest instance number first.

  Raises:
    errors.InputError: more than half of the positions hold several images.
  """
  from tfds_lidc.ct import series as dicom_series

  groups: list[list[dicom_series.Slice]] = []
  for item in series.slices:  # sorted by z
    if groups and item.z_mm - groups[-1][0].z_mm <= dicom_series.Z_TOLERANCE_MM:
      groups[-1].append(item)
    else:
      groups.append([item])
  several = sum(len({s.image_id for s in group}) > 1 for group in groups)
  if several > len(groups) / 2:
    raise errors.InputError(
      f'series {series.uid} holds several images at {several} of'
      f' {len(groups)} positions, perhaps of several passes: give the files of'
      ' one pass as --dicom.'
    )
  return [
    [s.path for s in sorted(group, key=lambda s: s.instance_number)]
    for group in groups
  ]


def read_header(path: _Path) -> 'pydicom.Dataset':
  """Reads the position and size of a slice from its header.

  Args:
    path: a CT image.

  Returns:
    The attributes that this module uses.

  Raises:
    errors.InputError: an attribute is missing or its value cannot be used.
  """
  checks = {**_NEEDED, **_OPTIONAL}
  header = parse(path, stop_before_pixels=True, specific_tags=list(checks))
  for name, is_usable in checks.items():
    # pydicom may raise any exception on an invalid header.
    try:
      value = header.get(name)
      missing = value is None or value == ''
      usable = name in _OPTIONAL if missing else is_usable(value)
    except Exception:
      missing, usable = False, False
    if not usable:
      what = f'has no {name}' if missing else f'has no usable {name}'
      raise errors.InputError(
        f'{path} {what}, so its position is unknown: export the series again.'
      )
  return header


def parse(path: _Path, **kwargs: Any) -> 'pydicom.Dataset':
  """Reads the header of a CT image with the arguments of `pydicom.dcmread`.

  Raises:
    errors.InputError: it cannot be read.
  """
  from tfds_lidc.ct import header as dicom_header

  header, fault = dicom_header.parse(path, **kwargs)
  if fault:
    # The fault's reason may quote the header, so only its kind is shown.
    raise errors.InputError(
      f'{path} cannot be read ({fault.kind}): export the series again.'
    )
  assert header is not None  # There is a header if there is no fault.
  return header


def stack(
  series: 'dicom_series.Series',
) -> tuple[list[list[str]], list['pydicom.Dataset'], list[str]]:
  """Finds the slices of a series that form one stack.

  A few images whose size or direction differs from that of the majority, such
  as a localizer or a reformatted plane, are left out.

  Args:
    series: has slices.

  Returns:
    The paths at each position, as from `by_position`; the header of the first
    path at each position; and the paths that are left out.

  Raises:
    errors.InputError: `by_position` or `read_header` raises it.
  """
  groups = by_position(series)
  headers = {}
  for paths in groups:
    # All files at a position are read, because the first may be a localizer.
    for path in paths:
      try:
        headers[path] = read_header(path)
      except errors.InputError:
        if len(paths) == 1:
          raise
    if not headers.keys() & set(paths):
      read_header(paths[0])
  strays = _strays(headers)
  kept = [
    sorted(
      (path for path in paths if path not in strays),
      key=lambda path: path not in headers,
    )
    for paths in groups
  ]
  kept = [paths for paths in kept if headers.keys() & set(paths)]
  return kept, [headers[paths[0]] for paths in kept], sorted(strays)


def _strays(headers):
  """The paths of images that do not belong to the stack of the others."""
  localizers = {
    path for path, header in headers.items() if _is_localizer(header)
  }
  if len(localizers) == len(headers):
    return set()  # `check_slice` then refuses the series with the reason.
  kinds = {
    path: _kind(header)
    for path, header in headers.items()
    if path not in localizers
  }
  usual, count = collections.Counter(kinds.values()).most_common(1)[0]
  if len(kinds) - count > _MAX_STRAY_SHARE * len(kinds):
    return localizers
  return localizers | {path for path, kind in kinds.items() if kind != usual}


def _is_localizer(header):
  return 'LOCALIZER' in (header.get('ImageType') or ())


def _kind(header):
  """The geometry that the slices of a stack share, rounded."""
  return (
    header.Rows,
    header.Columns,
    tuple(np.round(np.array(header.PixelSpacing, float), 3)),
    tuple(np.round(np.array(header.ImageOrientationPatient, float), 2) + 0.0),
  )


def check_slice(
  path: _Path, header: 'pydicom.Dataset', first: 'pydicom.Dataset'
) -> None:
  """Refuses a slice that does not belong to an axial stack of square pixels.

  Args:
    path: the file of the slice, for the message.
    header: the header of the slice, from `read_header`.
    first: the header of the first slice of the series.

  Raises:
    errors.InputError: the slice is not axial, its pixels are not square, or it
      does not lie above the first slice on the same grid.
  """
  down, across = (float(x) for x in header.PixelSpacing)
  cosines = np.array(header.ImageOrientationPatient, float)
  check_axes(path, cosines.reshape(2, 3).T, across=across, down=down)
  for name in ('Rows', 'Columns', 'FrameOfReferenceUID'):
    if header.get(name) != first.get(name):
      raise errors.InputError(
        f'{path} has another {name} than the first slice of its series: give'
        ' only the files of one stack as --dicom.'
      )
  same_grid = np.allclose(
    [*header.PixelSpacing, *cosines],
    np.array([*first.PixelSpacing, *first.ImageOrientationPatient], float),
    atol=1e-3,
  )
  away_mm = np.abs(
    np.array(header.ImagePositionPatient, float)
    - np.array(first.ImagePositionPatient, float)
  )
  shift_mm = away_mm[:2].max()
  # Slices that are slightly oblique may also be stacked at that angle.
  if not same_grid or shift_mm > down / 2 + _MAX_TILT * away_mm[2]:
    raise errors.InputError(
      f'{path} does not lie straight above the first slice of its series'
      f' (shifted by {shift_mm:g} mm; was the gantry tilted?): give an axial'
      ' series.'
    )


def check_axes(
  path: _Path, axes: np.ndarray, *, across: float, down: float
) -> None:
  """Refuses slices that are not axial, or whose pixels are not square.

  Args:
    path: the file, for the message.
    axes: (3, 2) or (3, 3), unit vectors along increasing column, row and slice.
    across: spacing of columns, mm.
    down: spacing of rows, mm.

  Raises:
    errors.InputError: the axes or spacings are invalid, the slices are not
      axial, or the pixels are not square.
  """
  if min(down, across) <= 0:
    raise errors.InputError(
      f'{path} has pixels of {down:g} x {across:g} mm, which is impossible:'
      ' export the series again.'
    )
  if np.abs(axes.T @ axes - np.eye(axes.shape[1])).max() > 1e-2:
    raise errors.InputError(
      f'{path} has the orientation {_rounded(axes)}, whose axes are not unit'
      ' vectors at right angles: export the series again.'
    )
  if (
    np.abs(axes[2, :2]).max() > _MAX_TILT
    or np.abs(axes[:2, 2:]).max(initial=0) > _MAX_TILT
  ):
    raise errors.InputError(
      f'{path} is not axial (orientation {_rounded(axes)}), but the networks'
      ' are trained on axial slices: give an axial series.'
    )
  if abs(down - across) > 1e-2 * down:
    raise errors.InputError(
      f'{path} has pixels of {down:g} x {across:g} mm, but the networks are'
      ' trained on square pixels: resample the series.'
    )


def _rounded(axes):
  """Axes in the order of ImageOrientationPatient, rounded for a message."""
  return np.round(axes.T.ravel(), 3).tolist()


def slice_spacing_mm(
  z_mm: np.ndarray, first: 'pydicom.Dataset', path: _Path
) -> float:
  """The spacing of slices, in mm.

  Args:
    z_mm: (slices,), ascending.
    first: header of the first slice, from `read_header`.
    path: its file, for the message.

  Returns:
    The median distance of neighbouring slices; for a single slice its
    thickness.

  Raises:
    errors.InputError: there is a single slice without SliceThickness.
  """
  if len(z_mm) > 1:
    return float(np.median(np.diff(z_mm)))
  thickness = float(first.get('SliceThickness') or 0)
  if thickness <= 0:
    raise errors.InputError(
      f'{path} is the only slice and has no SliceThickness: give the whole'
      ' series as --dicom.'
    )
  return thickness


def affine(first: 'pydicom.Dataset', spacing_mm: float) -> np.ndarray:
  """The matrix from voxels to positions in the patient.

  Args:
    first: header of the first slice, from `read_header`.
    spacing_mm: spacing of slices.

  Returns:
    (4, 4), (column, row, slice, 1) -> (x, y, z, 1) in patient mm (LPS).
  """
  cosines = np.array(first.ImageOrientationPatient, float)
  pixel_spacing_mm = float(first.PixelSpacing[0])
  matrix = np.eye(4)
  matrix[:3, 0] = cosines[:3] * pixel_spacing_mm
  matrix[:3, 1] = cosines[3:] * pixel_spacing_mm
  matrix[:3, 2] = 0, 0, spacing_mm
  matrix[:3, 3] = np.array(first.ImagePositionPatient, float)
  return matrix
