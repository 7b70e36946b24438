"""Where the slices of a CT series lie, and which series are refused.

Only what the networks were trained on is taken: axial slices, stacked without
shear, with square pixels. Everything else is refused rather than resampled.
`tfds_lidc` and `pydicom` are imported where they are needed, for the networks
load without them. No text of a header gets into a message: it could name the
patient.
"""

import functools

import numpy as np

from mtnet_jax.system import errors

# Cosines between an axis of the slice and z; 0.001 is 0.06 degrees.
_AXIAL = 1e-3
_TILT_DEGREES = 0.5
_TAGS = (
  'ImagePositionPatient',
  'ImageOrientationPatient',
  'PixelSpacing',
  'Rows',
  'Columns',
  'SliceThickness',
  'GantryDetectorTilt',
  'FrameOfReferenceUID',
)
# Tag -> how many numbers, and the largest of them in size: lengths in mm, and
# what is no length of a body is none.
_NEEDED_NUMBERS = {
  'ImagePositionPatient': (3, 1e5),
  'ImageOrientationPatient': (6, 1.01),
  'PixelSpacing': (2, 1e3),
}
_OPTIONAL_NUMBERS = {'SliceThickness': 1e3, 'GantryDetectorTilt': 360}
_MAX_SIDE = 1 << 16


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
  """What the header of a slice says of its place and size.

  Args:
    path: of a CT image.

  Returns:
    A `pydicom.Dataset` of the tags that the functions below read.

  Raises:
    errors.InputError: without one of them the place cannot be told.
  """
  header = parse(path, stop_before_pixels=True, specific_tags=list(_TAGS))

  def check(name, is_sound, optional=False):
    # What a stranger wrote surfaces as nearly any exception of pydicom.
    try:
      value = header.get(name)
      missing = value is None or value == ''
      sound = optional if missing else is_sound(value)
    except Exception:
      missing, sound = False, False
    if not sound:
      what = f'has no {name}' if missing else f'has no usable {name}'
      raise errors.InputError(
        f'{path} {what}: positions cannot be told. Export the series again.'
      )

  for name, (count, most) in _NEEDED_NUMBERS.items():
    check(name, functools.partial(_are_numbers, shape=(count,), most=most))
  for name in ('Rows', 'Columns'):
    check(name, lambda side: isinstance(side, int) and 0 < side < _MAX_SIDE)
  check('FrameOfReferenceUID', lambda uid: isinstance(uid, str))
  for name, most in _OPTIONAL_NUMBERS.items():
    check(
      name,
      functools.partial(_are_numbers, shape=(), most=most),
      optional=True,
    )
  return header


def _are_numbers(values, *, shape, most):
  values = np.array(values, float)
  # Written so that NaN fails.
  return values.shape == shape and bool((np.abs(values) <= most).all())


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
    # Its reason may quote the header.
    raise errors.InputError(
      f'{path} cannot be read ({fault.kind}): export the series again.'
    )
  return header


def check_slice(path, header, first):
  """Refuses what is no stack of axial slices with square pixels.

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
  tilt = abs(float(header.get('GantryDetectorTilt') or 0))
  if min(down, across) <= 0:
    raise errors.InputError(
      f'{path} has pixels of {down:g} x {across:g} mm: there are none such.'
      ' Export the series again.'
    )
  axes = cosines.reshape(2, 3)
  if np.abs(axes @ axes.T - np.eye(2)).max() > 1e-2:
    raise errors.InputError(
      f'{path} has an ImageOrientationPatient of'
      f' {np.round(cosines, 3).tolist()}: these are no two'
      ' directions at right angles. Export the series again.'
    )
  if abs(cosines[2]) > _AXIAL or abs(cosines[5]) > _AXIAL:
    raise errors.InputError(
      f'{path} is not axial (ImageOrientationPatient'
      f' {np.round(cosines, 3).tolist()}): the networks know axial slices'
      ' only. Give an axial series.'
    )
  if tilt > _TILT_DEGREES:
    raise errors.InputError(
      f'{path} was taken with a gantry tilted by {tilt:g} degrees: its slices'
      ' are not axial. Give an axial series.'
    )
  if abs(down - across) > 1e-2 * down:
    raise errors.InputError(
      f'{path} has pixels of {down:g} x {across:g} mm: the networks know square'
      ' ones only. Resample the series.'
    )
  for name in ('Rows', 'Columns', 'FrameOfReferenceUID'):
    if header[name].value != first[name].value:
      raise errors.InputError(
        f'{path} has another {name} than the first slice of its series: give'
        ' the files that belong together as --dicom.'
      )
  same_grid = np.allclose(
    [*header.PixelSpacing, *cosines],
    np.array([*first.PixelSpacing, *first.ImageOrientationPatient], float),
    atol=1e-3,
  )
  shift_mm = np.abs(
    np.array(header.ImagePositionPatient[:2], float)
    - np.array(first.ImagePositionPatient[:2], float)
  ).max()
  if not same_grid or shift_mm > down / 2:
    raise errors.InputError(
      f'{path} does not lie straight above the first slice of its series'
      f' (shifted by {shift_mm:g} mm; a tilted gantry?): give an axial series.'
    )


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
  """The matrix from voxels to places in the patient.

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
