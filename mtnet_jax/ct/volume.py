"""A CT as a volume; only the slices that are needed are read.

Slice 0 is the one of lowest z, as in the dataset, and HU and patches come from
the dataset's own code. `tfds_lidc` and `pydicom` are imported where they are
needed, because the networks load without them.
"""

import re

import numpy as np

# A series UID, as tools put it into names of files.
UID = re.compile(r'\d+(?:\.\d+){5,}')
# The dataset's; `patches.cut` has the same default.
_PATCH_SIZE = 64
# Where two slices are farther apart than this many usual steps, slices between
# them are missing.
_MAX_USUAL_STEPS = 1.5
# Every slice of a chest has air; none has anything so dense, not even metal.
_AIR_HU = -500
_GLARE_HU = 20_000
# A nodule is not followed across a wider step, in which it could end unseen.
_MAX_STEP_MM = 6.0


class PlaceError(Exception):
  """A place that cannot be used.

  Attributes:
    detail: which files, for the terminal only: paths can name a patient, and
      so stay out of what is written.
  """

  def __init__(self, what, detail=''):
    super().__init__(what)
    self.detail = detail


class SliceError(PlaceError):
  """A slice that is missing or cannot be read."""


class OutsideError(PlaceError):
  """A point outside of the volume."""


class Volume:
  """Axial slices of square pixels, read when they are asked for, each once.

  Attributes:
    series_uid: SeriesInstanceUID; '' where none is known.
    simulated: whether what it comes from says SIMULATED.
    left_out: files that are no slices of the stack, such as localizers.
    num_files: how many files were found of it.
    shape: (slices, rows, columns).
    pixel_spacing_mm: in-plane, the same in both directions.
    z_mm: (slices,), ascending.
    slice_spacing_mm: median distance of slices.
    affine: (4, 4), (column, row, slice, 1) -> (x, y, z, 1) in patient mm
      (LPS), at `slice_spacing_mm`.
    num_read: slices whose pixels were read.
  """

  series_uid = ''
  simulated = False
  left_out = ()
  num_files = 1

  def __init__(self, *, z_mm, side, affine, pixel_spacing_mm, slice_spacing_mm):
    """The grid of a volume.

    Args:
      z_mm, affine, pixel_spacing_mm, slice_spacing_mm: see the attributes.
      side: rows and columns of a slice.
    """
    self.z_mm = z_mm
    self.shape = (len(z_mm), *side)
    self.affine = affine
    self.slice_spacing_mm = slice_spacing_mm
    self.pixel_spacing_mm = pixel_spacing_mm
    self._to_index = np.linalg.inv(affine[:2, :2])
    self._read = {}
    self.num_read = 0
    self._airless = self._glaring = 0

  def _names(self, k):
    """What the images of slice `k` are called; several are copies."""
    raise NotImplementedError

  def _image(self, name):
    """(HU, None), or (None, `tfds_lidc.ct.header.Fault`), of an image."""
    raise NotImplementedError

  def _hint(self, low_mm, high_mm):
    """What else could be a slice between two z, for the terminal."""
    del low_mm, high_mm
    return ''

  def __len__(self):
    return len(self.z_mm)

  @property
  def misses_slices(self):
    """Whether slices are missing between others."""
    return len(self) > 1 and bool(
      np.diff(self.z_mm).max() > _MAX_USUAL_STEPS * self.slice_spacing_mm
    )

  @property
  def _max_step_mm(self):
    """The widest step between slices that counts as one to the next."""
    return min(_MAX_USUAL_STEPS * self.slice_spacing_mm, _MAX_STEP_MM)

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
      OutsideError: it lies outside.
      SliceError: its slice is missing.
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
      OutsideError: it lies outside.
    """
    k, row, col = voxel
    if not (self._on_slice(row, col) and -0.5 <= k <= len(self) - 0.5):
      slices, rows, cols = self.shape
      raise OutsideError(
        f'slice {k:g}, row {row:g}, column {col:g} is outside the volume of'
        f' {slices} slices, {rows} rows, {cols} columns'
      )
    # An index that rounds up at the very edge belongs to the last voxel.
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
    from tfds_lidc.ct import series as dicom_series

    k = int(np.abs(self.z_mm - z_mm).argmin())
    if abs(self.z_mm[k] - z_mm) > dicom_series.Z_TOLERANCE_MM:
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
    if distance > self._max_step_mm:
      side = 'above' if step > 0 else 'below'
      raise SliceError(
        f'the slice {side} z={self.z_mm[k]:g} mm is missing',
        self._hint(*sorted(self.z_mm[[k, k + step]])),
      )
    return k + step

  def thickness_mm(self, slices):
    """(n,) thickness of slices: from half the way below to half above."""
    if len(self) == 1:
      return np.full(len(slices), self.slice_spacing_mm)
    steps = np.diff(self.z_mm)
    # Beside a gap, or at the end, a slice is no thicker than usual.
    steps = np.minimum(steps, self._max_step_mm)
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
    from tfds_lidc.nodules import patches

    k, row, col = voxel
    first = None
    # Files that repeat a position are tried as the dataset does.
    for name in self._names(k):
      plane, fault = self._plane(name)
      if fault is None:
        image = patches.cut(plane, row, col, fill=patches.AIR_HU)
        if image.min() < image.max():
          return image
        fault = 'blank', f'is blank: {image[0, 0]} HU all around'
      first = first or (fault[0], f' ({name} {fault[1]})')
    kind, detail = first
    raise SliceError(
      f'the slice at z={self.z_mm[k]:g} mm cannot be used: {kind}', detail
    )

  def _plane(self, name):
    """`_image`, once for each."""
    if name not in self._read:
      hu, fault = self._read[name] = self._image(name)
      self.num_read += 1
      if fault is None:
        self._airless += hu.min() > _AIR_HU
        self._glaring += hu.max() > _GLARE_HU
    return self._read[name]

  def doubts(self):
    """Why the slices that were read may be no HU, a clause each."""
    found = []
    if self._airless:
      found.append(
        f'{self._airless} of {self.num_read} slices have no value below'
        f' {_AIR_HU} HU, and so no air: is their RescaleIntercept lost?'
      )
    if self._glaring:
      found.append(
        f'{self._glaring} of {self.num_read} slices have values above'
        f' {_GLARE_HU} HU, which nothing in a body has: padding that is not'
        ' declared?'
      )
    return found

  def inside(self, row, col):
    """(64, 64) bool: which pixels of a patch lie on the slice."""
    half = _PATCH_SIZE // 2
    rows = np.arange(row - half, row + half)
    cols = np.arange(col - half, col + half)
    _, height, width = self.shape
    return np.outer((rows >= 0) & (rows < height), (cols >= 0) & (cols < width))
