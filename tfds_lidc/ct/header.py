"""Reads headers of DICOM files, and finds out what is wrong with a file.

Nothing here raises: in a download of 240,000 files some are broken, and the
others still have to be read.
"""

import contextlib
import io
import math
import os
import stat
import struct
from typing import Any
from typing import BinaryIO
from typing import NamedTuple
import zlib

import pydicom
from pydicom import dataelem
from pydicom import errors as pydicom_errors
from pydicom import filereader
from pydicom import uid as pydicom_uid

from tfds_lidc import errors

# In the order of a file: if `Rows`, the last one, is there, so are the others.
_HEADER_TAGS = [
  'SOPClassUID',
  'SOPInstanceUID',
  'Modality',
  'SeriesDescription',
  'PatientID',
  'SeriesInstanceUID',
  'InstanceNumber',
  'ImagePositionPatient',
  'Rows',
]
# The tags and VRs with which a file without a preamble can begin.
_FIRST_TAGS = {
  *((0x0008, element) for element in (0x0000, 0x0001, 0x0005, 0x0008)),
  *((0x0008, element) for element in (0x0012, 0x0013, 0x0016, 0x0018)),
  *((0x0002, element) for element in (0x0000, 0x0001, 0x0002, 0x0010)),
}
_FIRST_VRS = {'UL', 'CS', 'DA', 'TM', 'UI', 'OB'}
_MULTI_FRAME = (
  pydicom_uid.EnhancedCTImageStorage,
  pydicom_uid.LegacyConvertedEnhancedCTImageStorage,
)
_DICOMDIR_CLASS = '1.2.840.10008.1.3.10'  # Media Storage Directory Storage
_PIXEL_DATA = struct.pack('<HH', 0x7FE0, 0x0010)
_SEQUENCE_END = struct.pack('<HHL', 0xFFFE, 0xE0DD, 0)
# Bytes; eight times a CT image of 4096 x 4096.
_MAX_INFLATED = 1 << 28
_MAX_REASON_LETTERS = 200
_MAX_UID_LETTERS = 64  # PS3.5, 6.2


class Fault(NamedTuple):
  """What is wrong with a file: a word for tables, and the end of a sentence."""

  kind: str
  reason: str


_NOT_DICOM = Fault('not DICOM', 'is not a DICOM file in spite of its name')


class Header(NamedTuple):
  """The header of an image; only CT has a position."""

  modality: str
  patient_id: str
  series_uid: str
  z_mm: float
  instance_number: int
  image_id: int
  simulated: bool = False  # SeriesDescription says SIMULATED


def read_header(
  path: str | os.PathLike[str],
) -> tuple[Header | None, Fault | None]:
  """Reads the header of any file.

  Args:
    path: any file.

  Returns:
    (header, fault). Both are None for a file that is no image and does not
    claim to be one. If there are both, the pixels are incomplete.
  """
  path = os.fspath(path)
  try:
    with _File(path) as f:
      start = f.read(132)
      # Neither the file's mark nor its name says that it is DICOM.
      doubtful = start[128:] != b'DICM' and not path.lower().endswith('.dcm')
      if start[128:] != b'DICM' and not _begins_without_preamble(start):
        return None, None if doubtful else _not_dicom(f)
      f.seek(0)
      dataset, fault = parse(
        f, stop_before_pixels=True, specific_tags=_HEADER_TAGS
      )
      if dataset is None:
        return None, None if doubtful else fault
      if dataset.file_meta.get('MediaStorageSOPClassUID') == _DICOMDIR_CLASS:
        return None, None
      # pydicom treats the end of a truncated file as the end of its header.
      modality = dataset.get('Modality')
      if doubtful and not modality:
        return None, None
      if not modality or (modality == 'CT' and 'Rows' not in dataset):
        return None, Fault('truncated', 'ends inside its DICOM header')
      if dataset.get('SOPClassUID') in _MULTI_FRAME:
        return None, Fault(
          'multi-frame',
          'contains all slices in one file (Enhanced CT), which is not '
          'supported; convert it to one file per slice',
        )
      missing = _missing(dataset, modality)
      if missing:
        return None, Fault('unreadable', f'has no {missing}')
      z_mm = float(dataset.ImagePositionPatient[2]) if modality == 'CT' else 0.0
      if not math.isfinite(z_mm):
        return None, Fault('unreadable', f'lies at z={z_mm} mm')
      if len(dataset.SeriesInstanceUID) > _MAX_UID_LETTERS:
        return None, Fault('unreadable', 'has an invalid SeriesInstanceUID')
      header = Header(
        str(modality),
        str(dataset.get('PatientID', '')),
        str(dataset.SeriesInstanceUID),
        z_mm,
        int(dataset.get('InstanceNumber') or 0),
        zlib.crc32(
          str(dataset.get('SOPInstanceUID') or path).encode(
            'utf-8', 'surrogateescape'
          )
        ),
        'SIMULATED' in str(dataset.get('SeriesDescription', '')),
      )
      return header, _incomplete(f, dataset) if modality == 'CT' else None
  # A damaged header can raise nearly any exception of pydicom or struct.
  except Exception as e:
    return None, unreadable(e)


def _missing(dataset: pydicom.Dataset, modality: str) -> str | None:
  """Returns the first required tag that an image lacks, or None."""
  needed = ['SeriesInstanceUID']
  if modality == 'CT':
    needed.append('ImagePositionPatient')
  return next((name for name in needed if not dataset.get(name)), None)


def _begins_without_preamble(start: bytes) -> bool:
  """Whether a file begins with elements of an image, as in old archives.

  These elements are of group 8, or of group 2 if the file has a meta header but
  no preamble. They either have an explicit VR, or are short.
  """
  if len(start) < 12:
    return False
  for order in '<>':
    group, element, length = struct.unpack(f'{order}HHL', start[:8])
    if (group, element) in _FIRST_TAGS:
      return start[4:6].decode('latin-1') in _FIRST_VRS or length <= 1024
  return False


def _not_dicom(f: BinaryIO) -> Fault:
  """Describes the content of a file that lacks the DICOM mark."""
  f.seek(0)
  start = f.read(4096)
  if not start:
    return Fault('empty', 'is empty, not a DICOM file')
  if not start.strip(b'\0'):
    return Fault('zeros', 'contains only zero bytes, not a DICOM file')
  try:
    start.decode('utf-8')
  except UnicodeDecodeError:
    return _NOT_DICOM
  if b'\0' in start:
    return _NOT_DICOM
  return Fault('text', 'is text, not a DICOM file in spite of its name')


def _incomplete(f: BinaryIO, dataset: pydicom.Dataset) -> Fault | None:
  """Finds out whether the file ends before its pixels do.

  Compares sizes, so that no pixel is read. `f` is at the start of the pixels.
  """
  # The encoding of the bytes; the transfer syntax may contradict it.
  implicit, little_endian = dataset.original_encoding
  syntax = dataset.file_meta.get('TransferSyntaxUID', '')
  deflated = syntax == pydicom_uid.DeflatedExplicitVRLittleEndian
  if deflated or not little_endian:
    return None  # the sizes are encoded differently
  start = f.read(12)
  if len(start) < 12 or start[:4] != _PIXEL_DATA:
    return Fault('truncated', 'ends before its pixels')
  length = struct.unpack('<L', start[4:8] if implicit else start[8:12])[0]
  begin = f.tell() - 4 * bool(implicit)
  size = f.seek(0, os.SEEK_END)
  if length == 0xFFFFFFFF:  # compressed: ends with a mark and maybe padding
    f.seek(max(begin, size - 4096))
    if _SEQUENCE_END not in f.read():
      return Fault('truncated', 'ends inside its compressed pixels')
  elif begin + length > size:
    return Fault(
      'truncated',
      f'ends inside its pixels, {begin + length - size} bytes short',
    )
  return None


def parse(
  source: str | os.PathLike[str] | BinaryIO, **kwargs: Any
) -> tuple[pydicom.FileDataset | None, Fault | None]:
  """Calls `pydicom.dcmread` on a file that may claim more bytes than it has.

  Args:
    source: a path, or the file opened by `read_header`.
    **kwargs: arguments of `pydicom.dcmread`.

  Returns:
    (dataset, None), or (None, what is wrong).
  """
  try:
    opened: contextlib.AbstractContextManager[BinaryIO]
    if isinstance(source, (str, os.PathLike)):
      opened = _File(source)
    else:
      opened = contextlib.nullcontext(source)
    with opened as f:
      if _inflates_beyond_measure(f):
        return None, Fault(
          'unreadable',
          f'inflates to more than {_MAX_INFLATED >> 20} MiB, which is no CT '
          'image',
        )
      start = f.read(132)
      f.seek(0)
      dataset = pydicom.dcmread(
        f, force=_begins_without_preamble(start), **kwargs
      )
      _note_encoding(dataset)
      return dataset, None
  except pydicom_errors.InvalidDicomError:
    return None, _NOT_DICOM
  # A truncated header can raise nearly any exception of pydicom or struct.
  except Exception as e:
    return None, unreadable(e)


def _note_encoding(dataset: pydicom.Dataset) -> None:
  """Sets `original_encoding` to the actual encoding of the elements.

  pydicom detects it, but keeps the encoding that the meta header claims.
  """
  for element in dataset.values():
    if isinstance(element, dataelem.RawDataElement):
      dataset.set_original_encoding(
        element.is_implicit_VR, element.is_little_endian
      )
      return


def _inflates_beyond_measure(f: BinaryIO) -> bool:
  """Whether a deflated file is a bomb, since pydicom would inflate all of it.

  Leaves the file at its start.
  """
  filereader.read_preamble(f, force=True)
  meta = filereader.read_dataset(
    f, False, True, stop_when=lambda tag, vr, length: tag.group != 2
  )
  deflated = meta.get('TransferSyntaxUID') == (
    pydicom_uid.DeflatedExplicitVRLittleEndian
  )
  beyond = False
  if deflated:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    remaining = _MAX_INFLATED
    while remaining > 0 and (
      block := inflater.unconsumed_tail or f.read(1 << 16)
    ):
      remaining -= len(inflater.decompress(block, 1 << 20))
    beyond = remaining <= 0
  f.seek(0)
  return beyond


class _File(io.BufferedReader):
  """An ordinary file that never allocates more than its size.

  A length of four bytes can claim 4 GiB, which Python would allocate before it
  finds that the file is shorter. A pipe in the folder would block for ever.
  """

  def __init__(self, path: str | os.PathLike[str]):
    # Systems without this flag have no such pipes.
    flags = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0)
    flags |= getattr(os, 'O_BINARY', 0)
    super().__init__(
      io.FileIO(path, opener=lambda name, _: os.open(name, flags))
    )
    status = os.fstat(self.fileno())
    self._size = status.st_size
    if not stat.S_ISREG(status.st_mode):
      self.close()
      raise OSError('not a regular file')

  def read(self, size: int | None = -1, /) -> bytes:
    return super().read(size if size is None else min(size, self._size))


def unreadable(e: Exception) -> Fault:
  """Returns the fault of a file that cannot be read because of `e`."""
  return Fault('unreadable', f'cannot be read ({type(e).__name__}: {_text(e)})')


def undecodable(e: Exception) -> Fault:
  """Returns the fault of an image that cannot be decoded because of `e`."""
  return Fault('unreadable', f'cannot be decoded ({_text(e)})')


def _text(e: Exception) -> str:
  text = errors.one_line(e)
  # The exception may quote any part of the file.
  if len(text) > _MAX_REASON_LETTERS:
    text = text[:_MAX_REASON_LETTERS] + '...'
  return text
