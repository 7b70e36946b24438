"""Where the slices of a CT series lie, and which series are refused.

Only series like those the networks were trained on are accepted: axial slices,
stacked without shear, with square pixels. Others are refused, not resampled.
`tfds_lidc` and `pydicom` are imported where they are needed, because the
networks load without them. No text of a header gets into a message: it could
name the patient.
"""

import collections

import numpy as np

from mtnet_jax.system import errors

# Cosines between an axis of the slice and z, and how much a stack may lean:
# 0.001 is 0.06 degrees.
_AXIAL = 1e-3
# Images that do not fit are left out where they are so few; more are refused.
_MAX_STRAY_SHARE = 0.05
_MAX_SIDE = 1 << 16


def _numbers(*shape, limit):
  """A check for numbers of a shape and of at most `limit` in size."""

  def check(values):
    values = np.array(values, float)
    # Written so that NaN fails.
    return values.shape == shape and bool((np.abs(values) <= limit).all())

  return check


def _is_side(value):
  return isinstance(value, int) and 0 < value < _MAX_SIDE


# Tag -> whether its value can be used. Lengths are in mm, and bounded by what
# can be a length in a body.
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


def by_position(series):
  """The files at each position, from the lowest z.

  Args:
    series: `tfds_lidc.ct.series.Series` with slices.

  Returns:
    A list of paths per position; of files that repeat it, the one of the lowest
    instance number first.

  Raises:
    errors.InputError: most positions hold several images.
  """
  from tfds_lidc.ct import series as dicom_series

  groups = []
  for item in series.slices:  # sorted by z
    if groups and item.z_mm - groups[-1][0].z_mm <= dicom_series.Z_TOLERANCE_MM:
      groups[-1].append(item)
    else:
      groups.append([item])
  several = sum(len({s.image_id for s in group}) > 1 for group in groups)
  if several > len(groups) / 2:
    raise errors.InputError(
      f'series {series.uid} holds several images at {several} of'
      f' {len(groups)} positions, such as those of several passes: give the'
      ' files of one as --dicom.'
    )
  return [
    [s.path for s in sorted(group, key=lambda s: s.instance_number)]
    for group in groups
  ]


def read_header(path):
  """What the header of a slice says about its position and size.

  Args:
    path: of a CT image.

  Returns:
    A `pydicom.Dataset` of the tags that the functions below read.

  Raises:
    errors.InputError: one of them is missing or cannot be used.
  """
  checks = {**_NEEDED, **_OPTIONAL}
  header = parse(path, stop_before_pixels=True, specific_tags=list(checks))
  for name, is_usable in checks.items():
    # pydicom raises nearly any exception on what strangers wrote.
    try:
      value = header.get(name)
      missing = value is None or value == ''
      usable = name in _OPTIONAL if missing else is_usable(value)
    except Exception:
      missing, usable = False, False
    if not usable:
      what = f'has no {name}' if missing else f'has no usable {name}'
      raise errors.InputError(
        f'{path} {what}: positions cannot be told. Export the series again.'
      )
  return header


def parse(path, **kwargs):
  """The header of a CT image, as `pydicom.dcmread` reads it.

  Args:
    path: of the file.
    **kwargs: of `pydicom.dcmread`.

  Raises:
    errors.InputError: it cannot be read.
  """
  from tfds_lidc.ct import header as dicom_header

  header, fault = dicom_header.parse(path, **kwargs)
  if fault:
    # The reason is left out: it may quote the header.
    raise errors.InputError(
      f'{path} cannot be read ({fault.kind}): export the series again.'
    )
  return header


def stack(series):
  """The slices of a series, without what is no slice of its stack.

  A few images of another size or direction than the others, such as a localizer
  or a reformatted plane, are left out. The majority decides.

  Args:
    series: `tfds_lidc.ct.series.Series` with slices.

  Returns:
    The paths at each position, of `by_position`; the header of the first of
    each, of `read_header`; and the paths that were left out.

  Raises:
    errors.InputError: of `by_position` and `read_header`.
  """
  groups = by_position(series)
  headers = {}
  for paths in groups:
    # Copies are read, too: at its position a localizer can be the first.
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
  """The paths of images that are no slices of the stack of the others."""
  localizers = {
    path for path, header in headers.items() if _is_localizer(header)
  }
  if len(localizers) == len(headers):
    return set()  # It is refused for what it is.
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
  """What slices of a stack share, each number rounded."""
  return (
    header.Rows,
    header.Columns,
    tuple(np.round(np.array(header.PixelSpacing, float), 3)),
    tuple(np.round(np.array(header.ImageOrientationPatient, float), 2) + 0.0),
  )


def check_slice(path, header, first):
  """Refuses a slice that does not belong to an axial stack of square pixels.

  Args:
    path: of the slice, for the message.
    header: of the slice, of `read_header`.
    first: that of the first slice of its series.

  Raises:
    errors.InputError: the slice is not axial, its pixels are not square, or it
      does not continue the stack that the first one begins.
  """
  down, across = (float(x) for x in header.PixelSpacing)
  cosines = np.array(header.ImageOrientationPatient, float)
  check_axes(path, cosines.reshape(2, 3).T, across=across, down=down)
  for name in ('Rows', 'Columns', 'FrameOfReferenceUID'):
    if header.get(name) != first.get(name):
      raise errors.InputError(
        f'{path} has another {name} than the first slice of its series: give'
        ' the files that belong together as --dicom.'
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
  # Slices as oblique as may be also lean as much.
  if not same_grid or shift_mm > down / 2 + _AXIAL * away_mm[2]:
    raise errors.InputError(
      f'{path} does not lie straight above the first slice of its series'
      f' (shifted by {shift_mm:g} mm; a tilted gantry?): give an axial series.'
    )


def check_axes(path, axes, *, across, down):
  """Refuses slices that are not axial, or whose pixels are not square.

  Args:
    path: for the message.
    axes: (3, 2) or (3, 3): the directions of columns, rows and slices.
    across, down: distances of columns and rows, mm.

  Raises:
    errors.InputError: so they are.
  """
  if min(down, across) <= 0:
    raise errors.InputError(
      f'{path} has pixels of {down:g} x {across:g} mm: there are none such.'
      ' Export the series again.'
    )
  if np.abs(axes.T @ axes - np.eye(axes.shape[1])).max() > 1e-2:
    raise errors.InputError(
      f'{path} has an orientation of {_rounded(axes)}: these are no directions'
      ' at right angles. Export the series again.'
    )
  if (
    np.abs(axes[2, :2]).max() > _AXIAL
    or np.abs(axes[:2, 2:]).max(initial=0) > _AXIAL
  ):
    raise errors.InputError(
      f'{path} is not axial (orientation {_rounded(axes)}): the networks know'
      ' axial slices only. Give an axial series.'
    )
  if abs(down - across) > 1e-2 * down:
    raise errors.InputError(
      f'{path} has pixels of {down:g} x {across:g} mm: the networks know square'
      ' ones only. Resample the series.'
    )


def _rounded(axes):
  """Directions as ImageOrientationPatient has them."""
  return np.round(axes.T.ravel(), 3).tolist()


def slice_spacing_mm(z_mm, first, path):
  """The usual distance of slices, in mm.

  Args:
    z_mm: (slices,), ascending.
    first: header of the first slice, of `read_header`.
    path: its file, for the message.

  Returns:
    The median distance; of a single slice its thickness.

  Raises:
    errors.InputError: a single slice does not say how thick it is.
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


def affine(first, spacing_mm):
  """The matrix from voxels to positions in the patient.

  Args:
    first: header of the first slice, of `read_header`.
    spacing_mm: distance of slices, mm.

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
