"""A CT series as a volume of which few slices are read.

Slice 0 is the one of lowest z, as in the dataset, and HU and patches come from
the dataset's own code. `tfds_lidc` and `pydicom` are imported where they are
needed, for the networks load without them.

Only what the networks were trained on is taken: axial slices, stacked without
shear, with square pixels. Everything else is refused rather than resampled.
No text of a header gets into a message: it could name the patient.
"""

import os

import numpy as np

from mtnet_jax import errors

_PATCH_SIZE = 64  # of the dataset; `patches.cut` has the same default
# Cosines between an axis of the slice and z; 0.001 is 0.06 degrees.
_AXIAL = 1e-3
_TILT_DEGREES = 0.5
# A wider step than this many usual ones is a slice that is missing; and none
# is walked over in which a nodule could end.
_GAP, _GAP_MM = 1.5, 6.0
_GEOMETRY_TAGS = (
  'ImagePositionPatient',
  'ImageOrientationPatient',
  'PixelSpacing',
  'Rows',
  'Columns',
  'SliceThickness',
  'GantryDetectorTilt',
  'FrameOfReferenceUID',
)
_NEEDED_TAGS = (
  'ImageOrientationPatient',
  'PixelSpacing',
  'Rows',
  'Columns',
  'FrameOfReferenceUID',
)
# Type 2: must be there, may be empty. De-identification sometimes drops them.
_TYPE_2 = (
  'PatientName',
  'PatientID',
  'PatientBirthDate',
  'PatientSex',
  'StudyDate',
  'StudyTime',
  'AccessionNumber',
  'StudyID',
  'ReferringPhysicianName',
)


class SliceError(Exception):
  """A slice that is not there or cannot be read.

  Attributes:
    detail: which files, for the user's eyes: paths can name a patient, and so
      stay out of what is written.
  """

  def __init__(self, what, detail=''):
    super().__init__(what)
    self.detail = detail


class OutsideError(SliceError):
  """A point outside of the volume."""


class CtVolume:
  """The slices of one series, read when they are asked for, each once.

  Attributes:
    series_uid: SeriesInstanceUID.
    simulated: whether its SeriesDescription says SIMULATED.
    shape: (slices, rows, columns).
    pixel_spacing_mm: in-plane, the same in both directions.
    z_mm: (slices,), ascending.
    slice_spacing_mm: median distance of slices.
    affine: (4, 4), (column, row, slice, 1) -> (x, y, z, 1) in patient mm
      (LPS), at `slice_spacing_mm`.
    num_read: slices whose pixels were read.
  """

  def __init__(self, series, faults=()):
    """Reads the headers of a series.

    Args:
      series: `tfds_lidc.dicom.Series` with slices.
      faults: `series_index.FileFault`s that may be its slices.

    Raises:
      errors.InputError: it is no stack of axial slices with square pixels.
    """
    self.series_uid = series.uid
    self.simulated = series.simulated
    self._faults = faults
    self._paths = _by_position(series)
    headers = [_geometry(paths[0]) for paths in self._paths]
    first = headers[0]
    for paths, header in zip(self._paths, headers, strict=True):
      _check_slice(paths[0], header, first)
    self.z_mm = np.array([float(h.ImagePositionPatient[2]) for h in headers])
    self.shape = (len(headers), int(first.Rows), int(first.Columns))
    self.pixel_spacing_mm = float(first.PixelSpacing[0])
    self.slice_spacing_mm = _slice_spacing(self.z_mm, first, self._paths[0][0])
    cosines = np.array(first.ImageOrientationPatient, float)
    self.affine = np.eye(4)
    self.affine[:3, 0] = cosines[:3] * self.pixel_spacing_mm
    self.affine[:3, 1] = cosines[3:] * self.pixel_spacing_mm
    self.affine[:3, 2] = 0, 0, self.slice_spacing_mm
    self.affine[:3, 3] = np.array(first.ImagePositionPatient, float)
    self._to_index = np.linalg.inv(self.affine[:2, :2])
    self._planes = {}
    self.num_read = 0

  def __len__(self):
    return len(self.z_mm)

  @property
  def misses_slices(self):
    """Whether slices are missing between others."""
    return len(self) > 1 and bool(
      np.diff(self.z_mm).max() > _GAP * self.slice_spacing_mm
    )

  @property
  def _widest_mm(self):
    """The widest step between slices that follow each other."""
    return min(_GAP * self.slice_spacing_mm, _GAP_MM)

  @property
  def is_regular(self):
    """Whether all slices are equally far apart, to a hundredth."""
    return len(self) == 1 or bool(
      np.ptp(np.diff(self.z_mm)) <= 1e-2 * self.slice_spacing_mm
    )

  def to_mm(self, voxel):
    """(slice, row, column) -> (x, y, z) in patient mm; the slice exists."""
    k, row, col = voxel
    x, y, _ = self.affine[:3, :2] @ (col, row) + self.affine[:3, 3]
    return float(x), float(y), float(self.z_mm[k])

  def to_voxel(self, position_mm):
    """(x, y, z) in patient mm -> (slice, row, column), the nearest voxel.

    Raises:
      SliceError: it lies outside, or its slice is missing.
    """
    x, y, z = position_mm
    offset = np.array([x, y]) - self.affine[:2, 3]
    col, row = self._to_index @ offset
    half = self.slice_spacing_mm / 2 + 1e-3
    if not self._on_slice(row, col) or not (
      self.z_mm[0] - half <= z <= self.z_mm[-1] + half
    ):
      low, high = self.bounds_mm()
      raise OutsideError(
        f'({x:g}, {y:g}, {z:g}) mm is outside the volume, which spans'
        + ','.join(
          f' {axis} {a:.1f} to {b:.1f}'
          for axis, a, b in zip('xyz', low, high, strict=True)
        )
      )
    k = int(np.abs(self.z_mm - z).argmin())
    if abs(self.z_mm[k] - z) > half:
      hint = self._hint(z - half, z + half)
      raise SliceError(f'the slice at z={z:g} mm is missing', hint)
    return k, int(np.rint(row)), int(np.rint(col))

  def check_voxel(self, voxel):
    """Rounds (slice, row, column).

    Raises:
      SliceError: it lies outside.
    """
    k, row, col = voxel
    if not (self._on_slice(row, col) and -0.5 <= k <= len(self) - 0.5):
      slices, rows, cols = self.shape
      raise OutsideError(
        f'slice {k:g}, row {row:g}, column {col:g} is outside the volume of'
        f' {slices} slices, {rows} rows, {cols} columns'
      )
    # What rounds up at the very edge is still the last one.
    return tuple(
      int(np.clip(np.rint(index), 0, side - 1))
      for index, side in zip(voxel, self.shape, strict=True)
    )

  def _on_slice(self, row, col):
    _, rows, cols = self.shape
    return -0.5 <= row <= rows - 0.5 and -0.5 <= col <= cols - 0.5

  def bounds_mm(self):
    """Lowest and highest (x, y, z) of pixel centres."""
    _, rows, cols = self.shape
    corners = [
      self.to_mm((k, row, col))
      for k in (0, -1)
      for row in (0, rows - 1)
      for col in (0, cols - 1)
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)

  def slice_at(self, z_mm):
    """The index of the slice at exactly `z_mm`.

    Raises:
      SliceError: it is missing.
    """
    from tfds_lidc import dicom

    k = int(np.abs(self.z_mm - z_mm).argmin())
    if abs(self.z_mm[k] - z_mm) > dicom.Z_TOLERANCE_MM:
      hint = self._hint(z_mm - 0.1, z_mm + 0.1)
      raise SliceError(f'the slice at z={z_mm:g} mm is missing', hint)
    return k

  def neighbour(self, k, step):
    """The slice next to `k`, upwards (step 1) or downwards (-1).

    Returns:
      Its index, or None at the end of the series.

    Raises:
      SliceError: slices are missing in between.
    """
    if not 0 <= k + step < len(self):
      return None
    distance = abs(self.z_mm[k + step] - self.z_mm[k])
    if distance > self._widest_mm:
      side = 'above' if step > 0 else 'below'
      raise SliceError(
        f'the slice {side} z={self.z_mm[k]:g} mm is missing',
        self._hint(*sorted(self.z_mm[[k, k + step]])),
      )
    return k + step

  def _hint(self, low_mm, high_mm):
    """Names a broken file that is, or could be, a slice between two z."""
    sure = [f for f in self._faults if f.z_mm is not None]
    sure = [f for f in sure if low_mm <= f.z_mm <= high_mm]
    unsure = [f for f in self._faults if f.z_mm is None]
    for fault in [*sure, *unsure]:
      perhaps = '' if sure else 'perhaps '
      return f' ({perhaps}{fault.path} {fault.reason})'
    return ''

  def thickness_mm(self, slices):
    """(n,) what each slice stands for: half the way to both neighbours."""
    if len(self) == 1:
      return np.full(len(slices), self.slice_spacing_mm)
    steps = np.diff(self.z_mm)
    # Beside a gap, or the end, a slice stands for no more than usual.
    steps = np.minimum(steps, self._widest_mm)
    below = np.concatenate([steps[:1], steps])
    above = np.concatenate([steps, steps[-1:]])
    return ((below + above) / 2)[list(slices)]

  def patch(self, voxel):
    """The HU around a voxel, as the dataset cuts them.

    Args:
      voxel: (slice, row, column).

    Returns:
      (64, 64) int16; -1024 where it leaves the slice.

    Raises:
      SliceError: no file of the slice can be read, or it is blank there.
    """
    from tfds_lidc import patches

    k, row, col = voxel
    first = None
    # Files that repeat a position are tried as the dataset does.
    for path in self._paths[k]:
      plane, fault = self._plane(path)
      if fault is None:
        image = patches.cut(plane, row, col, fill=patches.AIR_HU)
        if image.min() < image.max():
          return image
        fault = 'blank', f'is blank: {image[0, 0]} HU all around'
      first = first or (fault[0], f' ({path} {fault[1]})')
    kind, detail = first
    raise SliceError(
      f'the slice at z={self.z_mm[k]:g} mm cannot be used: {kind}', detail
    )

  def _plane(self, path):
    """(HU, None), or (None, `dicom_header.Fault`)."""
    from tfds_lidc import dicom

    if path not in self._planes:
      self._planes[path] = dicom.try_read_hu(path)
      self.num_read += 1
    return self._planes[path]

  def inside(self, row, col):
    """(64, 64) bool: which pixels of a patch lie on the slice."""
    half = _PATCH_SIZE // 2
    rows = np.arange(row - half, row + half)
    cols = np.arange(col - half, col + half)
    _, height, width = self.shape
    return np.outer((rows >= 0) & (rows < height), (cols >= 0) & (cols < width))

  def headers(self, slices):
    """Whole headers of slices, without pixels, for objects that refer to them.

    Type 2 attributes that are missing, or no valid values, become empty.
    """
    import pydicom

    found = []
    for k in slices:
      # Where files repeat a position: the one whose pixels were used.
      readable = [p for p in self._paths[k] if self._plane(p)[1] is None]
      path = (readable or self._paths[k])[0]
      header = pydicom.dcmread(path, stop_before_pixels=True)
      for name in _TYPE_2:
        value = header.get(name)
        if value is None or not _is_valid(name, value):
          setattr(header, name, '')
      found.append(header)
    return found


def find(paths, *, series_uid=None, show_progress=True):
  """Finds the series that is meant.

  Args:
    paths: folders, searched at any depth, and files.
    series_uid: which series; needed where there are several.
    show_progress: whether reading headers may show a bar.

  Returns:
    `CtVolume`.

  Raises:
    errors.InputError: there is no such series, several and none was chosen, or
      it cannot be used.
  """
  from tfds_lidc import errors as lidc_errors
  from tfds_lidc import series_index

  where = ', '.join(str(path) for path in paths)
  try:
    index = series_index.read(_files(paths), show_progress=show_progress)
  except lidc_errors.InputError as error:
    raise errors.InputError(str(error)) from error
  usable = {uid: s for uid, s in index.series.items() if s.slices}
  if not usable:
    raise _no_ct(where, index)
  listed = '; '.join(
    f'{uid} ({len(s.slices)} slices{", SIMULATED" if s.simulated else ""})'
    for uid, s in sorted(usable.items())
  )
  if series_uid is None and len(usable) > 1:
    raise errors.InputError(
      f'{where} holds {len(usable)} CT series: {listed}. Say which with'
      ' --series=UID.'
    )
  uid = series_uid or next(iter(usable))
  if uid not in usable:
    raise errors.InputError(
      f'{where} holds no CT series {uid}, but {listed}: give one of them as'
      ' --series.'
    )
  return CtVolume(usable[uid], index.faults_near(usable[uid]))


def _files(paths):
  from tfds_lidc import dicom

  found = []
  for path in paths:
    if os.path.isdir(path):
      found += dicom.files(path)
    elif os.path.isfile(path):
      found.append(os.fspath(path))
    else:
      raise errors.InputError(
        f'{path} does not exist: give the folder or files of a CT series as'
        ' --dicom.'
      )
  return list(dict.fromkeys(found))


def _no_ct(where, index):
  """The error for files of which none is a CT image that can be used."""
  if index.faults:
    fault = index.faults[0]
    more = len(index.faults) - 1
    said = f'{fault.path} {fault.reason}'
    if more:
      said += f' (and {more} more files cannot be used)'
  elif index.others:
    said = ', '.join(
      f'{len(files)} {modality} images of series {uid}'
      for (modality, _, uid), files in sorted(index.others.items())
    )
  else:
    said = f'{index.num_files} files, none of them DICOM'
  return errors.InputError(
    f'{where} holds no CT series: {said}. Give the folder or files of one as'
    ' --dicom.'
  )


def _by_position(series):
  """The files at each position, from the lowest z.

  Raises:
    errors.InputError: most positions hold several images.
  """
  from tfds_lidc import dicom

  groups = []
  for item in series.slices:  # sorted by z
    if groups and item.z_mm - groups[-1][0].z_mm <= dicom.Z_TOLERANCE_MM:
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


def _geometry(path):
  import pydicom

  header = pydicom.dcmread(
    path, stop_before_pixels=True, specific_tags=list(_GEOMETRY_TAGS)
  )
  for name in _NEEDED_TAGS:
    if not header.get(name):
      raise errors.InputError(
        f'{path} has no {name}: positions cannot be told. Export the series'
        ' again.'
      )
  return header


def _check_slice(path, header, first):
  """Refuses what is no stack of axial slices with square pixels.

  Raises:
    errors.InputError: says which.
  """
  down, across = (float(x) for x in header.PixelSpacing)
  cosines = np.array(header.ImageOrientationPatient, float)
  tilt = abs(float(header.get('GantryDetectorTilt') or 0))
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


def _is_valid(name, value):
  """Whether highdicom takes a type 2 attribute as it is."""
  from pydicom import valuerep

  if name == 'PatientSex':
    return value in ('M', 'F', 'O', '')
  convert = {
    'PatientBirthDate': valuerep.DA,
    'StudyDate': valuerep.DA,
    'StudyTime': valuerep.TM,
  }.get(name, str)
  try:
    convert(value)
  except (TypeError, ValueError):
    return False
  return True


def _slice_spacing(z_mm, first, path):
  if len(z_mm) > 1:
    return float(np.median(np.diff(z_mm)))
  thickness = float(first.get('SliceThickness') or 0)
  if thickness <= 0:
    raise errors.InputError(
      f'{path} is the only slice and has no SliceThickness: give the whole'
      ' series as --dicom.'
    )
  return thickness
