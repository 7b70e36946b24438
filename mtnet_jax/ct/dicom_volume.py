"""A CT volume that consists of DICOM files.

`tfds_lidc` and `pydicom` are imported where they are needed, because the
networks load without them.
"""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtnet_jax.ct import geometry
from mtnet_jax.ct import volume
from mtnet_jax.system import errors

if TYPE_CHECKING:
  import pydicom

  from tfds_lidc.ct import index as dicom_index
  from tfds_lidc.ct import series as dicom_series


class DicomVolume(volume.Volume):
  """The slices of one DICOM series."""

  def __init__(
    self,
    series: 'dicom_series.Series',
    faults: Sequence['dicom_index.FileFault'] = (),
  ):
    """Reads the headers of a series.

    Args:
      series: has slices.
      faults: files that cannot be used and may be slices of this series.

    Raises:
      errors.InputError: it is not a stack of axial slices with square pixels.
    """
    self._paths, headers, left_out = geometry.stack(series)
    first = headers[0]
    for paths, header in zip(self._paths, headers, strict=True):
      geometry.check_slice(paths[0], header, first)
    z_mm = np.array([float(h.ImagePositionPatient[2]) for h in headers])
    spacing_mm = geometry.slice_spacing_mm(z_mm, first, self._paths[0][0])
    super().__init__(
      z_mm=z_mm,
      side=(int(first.Rows), int(first.Columns)),
      affine=geometry.affine(first, spacing_mm),
      pixel_spacing_mm=float(first.PixelSpacing[0]),
      slice_spacing_mm=spacing_mm,
    )
    self.series_uid = series.uid
    self.simulated = series.simulated
    self.left_out = left_out
    self.num_files = len(series.slices)
    self._faults = faults

  def _names(self, k):
    # Files at the same position are tried in the same order as by the dataset.
    return self._paths[k]

  def _image(self, name):
    from tfds_lidc import errors as lidc_errors
    from tfds_lidc.ct import pixels

    with errors.translated(lidc_errors.InputError):
      return pixels.try_read_hu(name)

  def _hint(self, low_mm, high_mm):
    """Names a broken file that is, or may be, a slice between two z."""
    for fault in self._faults:
      if fault.z_mm is not None and low_mm <= fault.z_mm <= high_mm:
        return f' ({fault.path} {fault.reason})'
    for fault in self._faults:
      if fault.z_mm is None:
        return f' (perhaps {fault.path} {fault.reason})'
    return ''

  def headers(self, slices: Iterable[int]) -> list['pydicom.Dataset']:
    """Reads the whole headers of slices, without pixels.

    If several files have the position of a slice, this is the header of the
    file whose pixels are used.

    Args:
      slices: indices.

    Raises:
      errors.InputError: a file cannot be read any more.
    """
    found = []
    for k in slices:
      readable = [p for p in self._paths[k] if self._plane(p)[1] is None]
      path = (readable or self._paths[k])[0]
      found.append(geometry.parse(path, stop_before_pixels=True))
    return found
