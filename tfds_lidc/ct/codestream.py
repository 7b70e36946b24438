"""How large a compressed image says it is, before anything decodes it.

Decoders allocate what the compressed data claim, regardless of the DICOM
header: a few kilobytes can claim 60,000 x 60,000 pixels.
"""

import struct
from typing import NamedTuple

_SOI, _SOC = b'\xff\xd8', b'\xff\x4f'
_SIZ = b'\xff\x51'
# Start of frame: of JPEG, except C4, C8 and CC, and of JPEG-LS.
_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# A JPEG 2000 file, which DICOM does not want and some writers write.
_JP2 = b'\0\0\0\x0cjP  '


class Size(NamedTuple):
  """The size of an image, as its compressed data give it."""

  rows: int
  columns: int
  components: int


def size(stream: bytes) -> Size | None:
  """Reads the size from JPEG, JPEG-LS or JPEG 2000 data.

  Args:
    stream: one compressed image.

  Returns:
    The size; None where the data are none of these, or damaged.
  """
  try:
    if stream.startswith(_JP2):
      stream = _code_of_jp2(stream)
    if stream.startswith(_SOC + _SIZ):
      # ISO/IEC 15444-1, A.5.1: length, capabilities, far and near corner.
      width, height, left, top = struct.unpack('>4L', stream[8:24])
      (components,) = struct.unpack('>H', stream[40:42])
      return Size(height - top, width - left, components)
    if stream.startswith(_SOI):
      return _jpeg(stream)
  except struct.error:  # breaks off
    pass
  return None


def _code_of_jp2(stream: bytes) -> bytes:
  at = len(_JP2) + 4
  while True:
    length, kind = struct.unpack('>L4s', stream[at : at + 8])
    if kind == b'jp2c':
      return stream[at + 8 :]
    if length < 8:  # would stay where it is
      return b''
    at += length


def _jpeg(stream: bytes) -> Size | None:
  at = 2
  while True:
    mark, marker, length = struct.unpack('>BBH', stream[at : at + 4])
    if mark != 0xFF:
      return None
    if marker in _SOF:
      # ISO/IEC 10918-1, B.2.2: length, precision, lines, samples, components.
      return Size(*struct.unpack('>HHB', stream[at + 5 : at + 10]))
    at += 2 + length
