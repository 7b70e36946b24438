"""An encoder for JPEG Lossless, for which known packages have only decoders."""

import struct

import numpy as np

_CODE_BITS = 5  # the Huffman code of a category is its number in five bits


def encode(pixels: np.ndarray, bits: int) -> bytes:
  """Encodes one image without loss (ITU-T T.81, process 14, annex H).

  The predictor is the pixel to the left (selection value 1), or the pixel above
  in the first column.

  Args:
    pixels: (rows, columns) integers; negative ones in two's complement.
    bits: number of bits of a pixel, at most 16.

  Returns:
    A JPEG stream.
  """
  values = pixels.astype(np.int64) & ((1 << bits) - 1)
  predicted = np.empty_like(values)
  predicted[0, 0] = 1 << (bits - 1)
  predicted[1:, 0] = values[:-1, 0]
  predicted[:, 1:] = values[:, :-1]
  # Differences are taken modulo 2**16.
  differences = (values - predicted + (1 << 15)) % (1 << 16) - (1 << 15)
  coded = ''.join(map(_code, differences.ravel().tolist()))
  coded += '1' * (-len(coded) % 8)
  data = int(coded, 2).to_bytes(len(coded) // 8, 'big')
  rows, columns = pixels.shape
  return b''.join(
    (
      b'\xff\xd8',
      _segment(0xC3, struct.pack('>BHHB3B', bits, rows, columns, 1, 1, 17, 0)),
      _segment(
        0xC4,  # 17 codes of five bits, for categories 0 to 16
        bytes([0] + [17 * (n == _CODE_BITS) for n in range(1, 17)]),
        bytes(range(17)),
      ),
      _segment(0xDA, bytes([1, 1, 0, 1, 0, 0])),
      data.replace(b'\xff', b'\xff\x00'),
      b'\xff\xd9',
    )
  )


def _code(difference: int) -> str:
  """Returns the code of a difference: its category, then its index therein."""
  category = 16 if difference == -(1 << 15) else abs(difference).bit_length()
  code = f'{category:0{_CODE_BITS}b}'
  if category in (0, 16):
    return code
  if difference < 0:
    difference += (1 << category) - 1
  return code + f'{difference:0{category}b}'


def _segment(marker: int, *parts: bytes) -> bytes:
  content = b''.join(parts)
  return struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content
