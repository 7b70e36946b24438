"""A CT as a volume of slices, which are read when they are needed.

Slice 0 has the lowest z, as in the dataset. The dataset's own code reads HU and
cuts patches. `tfds_lidc` and `pydicom` are imported where they are needed,
because the networks load without them.
"""

from collections.abc import Sequence
import re
from typing import Any

import numpy as np

from mtnet_jax.ct import views

# Matches a series UID, also within the name of a file.
UID = re.compile(r'\d+(?:\.\d+){5,}')
# Side of the dataset's patches; `patches.cut` has the same default.
_PATCH_SIZE = 64
# Slices are missing where the step exceeds this multiple of the slice spacing.
_MAX_SPACINGS_PER_STEP = 1.5
# Every slice of a chest contains air, whose HU is below this value.
_AIR_HU = -500
# Nothing in a scanner, not even metal, has a higher value.
_MAX_HU = 20_000
# A nodule is not followed across a wider step, where it could end unnoticed.
_MAX_STEP_MM = 6.0


class PlaceError(Exception):
  """A place that cannot be used.

  Attributes:
    detail: names files. It is for the terminal only and never written, because
      paths can name a patient.
  """

  def __init__(self, message: str, detail: str = ''):
    super().__init__(message)
    self.detail = detail


class SliceError(PlaceError):
  """A slice is missing or cannot be read."""


class OutsideError(PlaceError):
  """A point is outside of the volume."""


class Volume:
  """Axial slices with square pixels, each read once, when it is needed.

  A subclass says how the images of a slice are read.

  Attributes:
    series_uid: SeriesInstanceUID; '' if it is not known.
    simulated: whether the CT is marked as SIMULATED.
    left_out: files that do not belong to the stack, such as localizers.
    num_files: number of files of the CT.
    shape: (slices, rows, columns).
    pixel_spacing_mm: in-plane, the same in both directions.
    z_mm: (slices,), ascending.
    slice_spacing_mm: median spacing of slices.
    affine: (4, 4), (column, row, slice, 1) -> (x, y, z, 1) in patient mm
      (LPS), as if all slices were `slice_spacing_mm` apart.
    num_read: number of images whose pixels were read.
  """

  series_uid: str = ''
  simulated: bool = False
  left_out: Sequence[str] = ()
  num_files: int = 1

  def __init__(
    self,
    *,
    z_mm: np.ndarray,
    side: tuple[int, int],
    affine: np.ndarray,
    pixel_spacing_mm: float,
    slice_spacing_mm: float,
  ):
    """Sets the grid of the volume.

    Args:
      z_mm: see the attributes, as for the other arguments.
      side: number of rows and columns of a slice.
      affine: see the attributes.
      pixel_spacing_mm: see the attributes.
      slice_spacing_mm: see the attributes.
    """
    self.z_mm = z_mm
    self.shape: tuple[int, int, int] = (len(z_mm), *side)
    self.affine = affine
    self.slice_spacing_mm = slice_spacing_mm
    self.pixel_spacing_mm = pixel_spacing_mm
    self._to_index = np.linalg.inv(affine[:2, :2])
    self._read: dict[Any, Any] = {}  # name of an image -> result of `_image`
    self.num_read = 0
    self._num_without_air = self._num_too_dense = 0

  def _names(self, k):
    """Names for `_image` of the images of slice `k`; several are copies."""
    raise NotImplementedError

  def _image(self, name):
    """Reads an image: (HU, None) or (None, `tfds_lidc.ct.header.Fault`)."""
    raise NotImplementedError

  def _hint(self, low_mm, high_mm):
    """Names a file that may be the slice between two z, for the terminal."""
    del low_mm, high_mm
    return ''

  def __len__(self) -> int:
    return len(self.z_mm)

  @property
  def lacks_slices(self) -> bool:
    """Whether slices are missing between others."""
    return len(self) > 1 and bool(
      np.diff(self.z_mm).max() > _MAX_SPACINGS_PER_STEP * self.slice_spacing_mm
    )

  @property
  def _max_step_mm(self):
    """The widest step between two slices that count as neighbours."""
    return min(_MAX_SPACINGS_PER_STEP * self.slice_spacing_mm, _MAX_STEP_MM)

  @property
  def is_regular(self) -> bool:
    """Whether the slices are evenly spaced, to a hundredth of the spacing."""
    return len(self) == 1 or bool(
      np.ptp(np.diff(self.z_mm)) <= 1e-2 * self.slice_spacing_mm
    )

  def to_mm(self, voxel: views.Voxel) -> tuple[float, float, float]:
    """Converts (slice, row, column) to (x, y, z) in patient mm."""
    k, row, col = voxel
    x, y, _ = self.affine[:3, :2] @ (col, row) + self.affine[:3, 3]
    return float(x), float(y), float(self.z_mm[k])

  def to_voxel(self, position_mm: tuple[float, float, float]) -> views.Voxel:
    """Converts (x, y, z) in patient mm to the nearest (slice, row, column).

    Raises:
      OutsideError: the position is outside of the volume.
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

  def check_voxel(self, voxel: tuple[float, float, float]) -> views.Voxel:
    """Rounds (slice, row, column) to the nearest voxel.

    Raises:
      OutsideError: the point is outside of the volume.
    """
    k, row, col = voxel
    if not (self._on_slice(row, col) and -0.5 <= k <= len(self) - 0.5):
      slices, rows, cols = self.shape
      raise OutsideError(
        f'slice {k:g}, row {row:g}, column {col:g} is outside the volume of'
        f' {slices} slices, {rows} rows, {cols} columns'
      )
    # An index that rounds up at the very edge belongs to the last voxel.
    k, row, col = (
      int(np.clip(np.rint(index), 0, side - 1))
      for index, side in zip(voxel, self.shape, strict=True)
    )
    return k, row, col

  def _on_slice(self, row, col):
    _, rows, cols = self.shape
    return -0.5 <= row <= rows - 0.5 and -0.5 <= col <= cols - 0.5

  def bounds_mm(self) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest (x, y, z) of pixel centres."""
    _, rows, cols = self.shape
    corners = [
      self.to_mm((k, row, col))
      for k in (0, -1)
      for row in (0, rows - 1)
      for col in (0, cols - 1)
    ]
    return np.min(corners, axis=0), np.max(corners, axis=0)

  def slice_at(self, z_mm: float) -> int:
    """The index of the slice at `z_mm`, up to the tolerance of headers.

    Raises:
      SliceError: it is missing.
    """
    from tfds_lidc.ct import series as dicom_series

    k = int(np.abs(self.z_mm - z_mm).argmin())
    if abs(self.z_mm[k] - z_mm) > dicom_series.Z_TOLERANCE_MM:
      hint = self._hint(z_mm - 0.1, z_mm + 0.1)
      raise SliceError(f'the slice at z={z_mm:g} mm is missing', hint)
    return k

  def neighbour(self, k: int, step: int) -> int | None:
    """The index of the slice next to `k`; None at the end of the series.

    Args:
      k: a slice.
      step: 1 for upwards, -1 for downwards.

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

  def thickness_mm(self, slices: Sequence[int]) -> np.ndarray:
    """(n,) thickness of slices: half of the step below plus half of that above.

    Args:
      slices: n indices.
    """
    if len(self) == 1:
      return np.full(len(slices), self.slice_spacing_mm)
    steps = np.diff(self.z_mm)
    # A slice beside a gap does not stand for the missing slices.
    steps = np.minimum(steps, self._max_step_mm)
    below = np.concatenate([steps[:1], steps])
    above = np.concatenate([steps, steps[-1:]])
    return ((below + above) / 2)[list(slices)]

  def patch(self, voxel: views.Voxel) -> np.ndarray:
    """Cuts the HU around a voxel, as the dataset does.

    Args:
      voxel: (slice, row, column).

    Returns:
      (64, 64) int16; -1024 outside of the slice.

    Raises:
      SliceError: no image of the slice can be read, or all are blank there.
    """
    from tfds_lidc.nodules import patches

    k, row, col = voxel
    first_fault = None
    # Copies of the slice are tried in the same order as by the dataset.
    for name in self._names(k):
      plane, fault = self._plane(name)
      if fault is None:
        image = patches.cut(plane, row, col, fill=patches.AIR_HU)
        if image.min() < image.max():
          return image
        fault = 'blank', f'is blank: {image[0, 0]} HU all around'
      first_fault = first_fault or (fault[0], f' ({name} {fault[1]})')
    assert first_fault is not None  # Each slice has at least one image.
    kind, detail = first_fault
    raise SliceError(
      f'the slice at z={self.z_mm[k]:g} mm cannot be used: {kind}', detail
    )

  def _plane(self, name):
    """The result of `_image`, which is called once per image."""
    if name not in self._read:
      hu, fault = self._read[name] = self._image(name)
      self.num_read += 1
      if fault is None:
        self._num_without_air += hu.min() > _AIR_HU
        self._num_too_dense += hu.max() > _MAX_HU
    return self._read[name]

  def notes_on_hu(self) -> list[str]:
    """Notes on why the values that were read may not be HU."""
    notes = []
    if self._num_without_air:
      notes.append(
        f'{self._num_without_air} of {self.num_read} slices have no value below'
        f' {_AIR_HU} HU, so no air: is their RescaleIntercept lost?'
      )
    if self._num_too_dense:
      notes.append(
        f'{self._num_too_dense} of {self.num_read} slices have values above'
        f' {_MAX_HU} HU, which nothing in a body has: are they padding that the'
        ' header does not declare?'
      )
    return notes

  def inside(self, row: int, col: int) -> np.ndarray:
    """(64, 64) bool: which pixels of the patch around a pixel exist."""
    half = _PATCH_SIZE // 2
    rows = np.arange(row - half, row + half)
    cols = np.arange(col - half, col + half)
    _, height, width = self.shape
    return np.outer((rows >= 0) & (rows < height), (cols >= 0) & (cols < width))
