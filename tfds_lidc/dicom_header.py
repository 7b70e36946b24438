"""What the header of a DICOM file says, and what is wrong with the file.

Nothing here raises: a download of 240,000 files holds some that are broken, and
the others are wanted all the same.
"""

import os
import struct
from typing import Any
from typing import BinaryIO
from typing import NamedTuple
import zlib

import pydicom
from pydicom import errors as pydicom_errors
from pydicom import uid as pydicom_uid

# Ascending; `Rows` comes last in a file too, so a header that has it is whole.
_HEADER_TAGS = [
  'SOPInstanceUID',
  'Modality',
  'SeriesDescription',
  'PatientID',
  'SeriesInstanceUID',
  'InstanceNumber',
  'ImagePositionPatient',
  'Rows',
]
_DICOMDIR_CLASS = '1.2.840.10008.1.3.10'  # Media Storage Directory Storage
_PIXEL_DATA = struct.pack('<HH', 0x7FE0, 0x0010)
_SEQUENCE_END = struct.pack('<HHL', 0xFFFE, 0xE0DD, 0)


class Fault(NamedTuple):
  """What is wrong with a file: a word for tables, and a sentence's end."""

  kind: str
  reason: str


class Header(NamedTuple):
  """What the header of an image says; the position is that of CT only."""

  modality: str
  patient_id: str
  series_uid: str
  z_mm: float
  instance_number: int
  image_id: int
  simulated: bool = False  # SeriesDescription says SIMULATED


def read_header(
  path: str | os.PathLike,
) -> tuple[Header | None, Fault | None]:
  """Reads the header of a file, whatever the file is.

  Args:
    path: any file.

  Returns:
    (header, fault). (None, None) for a file that is no image and does not
    pretend to be one. A fault beside a header: the pixels are incomplete.
  """
  path = os.fspath(path)
  try:
    with open(path, 'rb') as f:
      if f.read(132)[128:] != b'DICM':
        if not path.lower().endswith('.dcm'):
          return None, None
        return None, _not_dicom(f)
      f.seek(0)
      dataset, fault = parse(
        f, stop_before_pixels=True, specific_tags=_HEADER_TAGS
      )
      if fault:
        return None, fault
      if dataset.file_meta.get('MediaStorageSOPClassUID') == _DICOMDIR_CLASS:
        return None, None
      # pydicom takes the end of a truncated file for the end of its header.
      modality = dataset.get('Modality')
      if not modality or (modality == 'CT' and 'Rows' not in dataset):
        return None, Fault('truncated', 'breaks off inside its DICOM header')
      header = Header(
        str(modality),
        str(dataset.get('PatientID', '')),
        str(dataset.SeriesInstanceUID),
        float(dataset.ImagePositionPatient[2]) if modality == 'CT' else 0.0,
        int(dataset.get('InstanceNumber') or 0),
        zlib.crc32(str(dataset.get('SOPInstanceUID') or path).encode()),
        'SIMULATED' in str(dataset.get('SeriesDescription', '')),
      )
      return header, _incomplete(f, dataset) if modality == 'CT' else None
  # A damaged header surfaces as nearly any exception of pydicom or struct.
  except Exception as e:
    return None, unreadable(e)


def _not_dicom(f: BinaryIO) -> Fault:
  """What a file without the mark of DICOM holds instead."""
  f.seek(0)
  start = f.read(4096)
  if not start:
    return Fault('empty', 'is empty, not a DICOM file')
  if not start.strip(b'\0'):
    return Fault('zeros', 'holds zero bytes, not a DICOM file')
  try:
    start.decode('utf-8')
  except UnicodeDecodeError:
    return Fault('not DICOM', 'is not a DICOM file in spite of its name')
  if b'\0' in start:
    return Fault('not DICOM', 'is not a DICOM file in spite of its name')
  return Fault('text', 'is text, not a DICOM file in spite of its name')


def _incomplete(f: BinaryIO, dataset: pydicom.Dataset) -> Fault | None:
  """Whether the file ends before its pixels do; `f` is where they start.

  Compares sizes, so that no pixel is read.
  """
  syntax = pydicom_uid.UID(dataset.file_meta.get('TransferSyntaxUID', ''))
  if syntax in (
    pydicom_uid.ExplicitVRBigEndian,
    pydicom_uid.DeflatedExplicitVRLittleEndian,
  ):
    return None  # the sizes are written otherwise
  start = f.read(12)
  if len(start) < 12 or start[:4] != _PIXEL_DATA:
    return Fault('truncated', 'breaks off before its pixels')
  implicit = syntax == pydicom_uid.ImplicitVRLittleEndian
  length = struct.unpack('<L', start[4:8] if implicit else start[8:12])[0]
  begin = f.tell() - 4 * implicit
  size = f.seek(0, os.SEEK_END)
  if length == 0xFFFFFFFF:  # compressed: ends with a mark, perhaps padded
    f.seek(max(begin, size - 4096))
    if _SEQUENCE_END not in f.read():
      return Fault('truncated', 'breaks off inside its compressed pixels')
  elif begin + length > size:
    return Fault(
      'truncated',
      f'breaks off inside its pixels, {begin + length - size} bytes short',
    )
  return None


def parse(
  source: str | os.PathLike | BinaryIO, **kwargs: Any
) -> tuple[pydicom.Dataset | None, Fault | None]:
  try:
    return pydicom.dcmread(source, **kwargs), None
  except pydicom_errors.InvalidDicomError:
    return None, Fault('not DICOM', 'is not a DICOM file in spite of its name')
  # A truncated header surfaces as nearly any exception of pydicom or struct.
  except Exception as e:
    return None, unreadable(e)


def unreadable(e: Exception) -> Fault:
  text = ' '.join(str(e).split())
  return Fault('unreadable', f'cannot be read ({type(e).__name__}: {text})')
