"""Finds the compression and the size of an image before it is decoded.

Decoders allocate the size that the compressed data claim, regardless of the
DICOM header: a few kilobytes can claim 60,000 x 60,000 pixels.
"""

import struct
from typing import NamedTuple

_SOI, _SOC = b'\xff\xd8', b'\xff\x4f'
_SIZ = b'\xff\x51'
# Start-of-frame markers of JPEG (not C4, C8 and CC) and of JPEG-LS.
_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JPEG_KINDS = {
  0xC0: 'JPEG',
  0xC1: 'JPEG Extended',
  0xC3: 'JPEG Lossless',
  0xF7: 'JPEG-LS',
}
# The header of a JPEG 2000 file, which some writers embed although DICOM does
# not allow it.
_JP2 = b'\0\0\0\x0cjP  '


class Size(NamedTuple):
  """The size of an image according to its compressed data."""

  rows: int
  columns: int
  components: int


def size(stream: bytes) -> Size | None:
  """Reads the size from JPEG, JPEG-LS or JPEG 2000 data.

  Args:
    stream: one compressed image.

  Returns:
    The size; None if the data have another format or are damaged.
  """
  try:
    if stream.startswith(_JP2):
      stream = _code_of_jp2(stream)
    if stream.startswith(_SOC + _SIZ):
      # ISO/IEC 15444-1, A.5.1: far corner, then near corner.
      width, height, left, top = struct.unpack('>4L', stream[8:24])
      (components,) = struct.unpack('>H', stream[40:42])
      return Size(height - top, width - left, components)
    if stream.startswith(_SOI):
      return _jpeg(stream)
  except struct.error:  # the data are truncated
    pass
  return None


def _code_of_jp2(stream: bytes) -> bytes:
  """Extracts the code stream from a JPEG 2000 file."""
  at = len(_JP2) + 4
  while True:
    length, kind = struct.unpack('>L4s', stream[at : at + 8])
    if kind == b'jp2c':
      return stream[at + 8 :]
    if length < 8:  # damaged; the loop would never end
      return b''
    at += length


def _jpeg(stream: bytes) -> Size | None:
  at, marker = _frame(stream)
  if marker is None:
    return None
  # ISO/IEC 10918-1, B.2.2: after length and precision come lines, samples per
  # line and components.
  return Size(*struct.unpack('>HHB', stream[at + 5 : at + 10]))


def _frame(stream: bytes) -> tuple[int, int | None]:
  """Finds the start-of-frame marker of a JPEG: its position and its code."""
  at = 2
  while True:
    mark, marker, length = struct.unpack('>BBH', stream[at : at + 4])
    if mark != 0xFF:
      return at, None
    if marker in _SOF:
      return at, marker
    at += 2 + length


def kind(stream: bytes) -> str | None:
  """Names the compression of an image.

  Args:
    stream: one compressed image.

  Returns:
    'JPEG', 'JPEG Extended', 'JPEG Lossless', 'JPEG-LS', 'JPEG 2000',
    'High-Throughput JPEG 2000' or 'RLE'; None for anything else.
  """
  try:
    if stream.startswith(_JP2):
      stream = _code_of_jp2(stream)
    if stream.startswith(_SOC + _SIZ):
      # Bit 14 of the capabilities (Rsiz) means Part 15 (ISO/IEC 15444-15, A.2).
      (capabilities,) = struct.unpack('>H', stream[6:8])
      return f'{"High-Throughput " if capabilities & 1 << 14 else ""}JPEG 2000'
    if stream.startswith(_SOI):
      _, marker = _frame(stream)
      return None if marker is None else _JPEG_KINDS.get(marker)
    # PS3.5, G.5: number of segments, then their offsets, the first of which is
    # always 64.
    num_segments, first = struct.unpack('<2L', stream[:8])
    return 'RLE' if num_segments in range(1, 16) and first == 64 else None
  except struct.error:
    return None
