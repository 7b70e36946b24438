"""One CT image of a file as HU.

Compressed images are decoded in another process, see `decoder`; what claims to
be larger than a CT image is refused before it is decoded.
"""

import os

import numpy as np
import pydicom
from pydicom import encaps
from pydicom import pixels

from tfds_lidc import errors
from tfds_lidc.ct import codestream
from tfds_lidc.ct import decoder
from tfds_lidc.ct import header
from tfds_lidc.ct import metaimage
from tfds_lidc.ct import syntax

_INT16 = np.iinfo(np.int16)
# No CT image is larger; what claims to be is refused before it is decoded.
_MAX_PIXELS = 4096 * 4096
_NEEDED = (
  'Rows',
  'Columns',
  'BitsAllocated',
  'RescaleSlope',
  'RescaleIntercept',
)
_BITS = (1, 8, 16, 32)
# Of what a scanner can measure; metal reaches it (12 bits, PS3.3 C.11.1).
_MAX_HU = 3071
_AIR_HU = -1024
# Of CT: Hounsfield units, or unsaid ('US'), which they are all the same.
_HU_TYPES = ('', 'HU', 'HU_MOD', 'US')

# Installed with this package.
_DECODERS = ('pydicom', 'pillow', 'pyjpegls')
# What decodes the images that these cannot: JPEG Lossless and Extended;
# High-Throughput JPEG 2000, which GDCM cannot either. The extra `jpeg` has all.
_CODEC = 'python-gdcm'
_HIGH_THROUGHPUT_CODEC = 'pylibjpeg pylibjpeg-openjpeg'

_decode_apart = decoder.Decoder()


def try_read_hu(
  path: str | os.PathLike,
) -> tuple[np.ndarray | None, header.Fault | None]:
  """Reads one CT image.

  Args:
    path: a DICOM file, or a slice of `metaimage`.

  Returns:
    (HU, None), or (None, what is wrong). The HU are (rows, columns) int16:
    raw * RescaleSlope + RescaleIntercept, rounded where the slope is
    fractional, saturated where it leaves int16. What PixelPaddingValue says is
    no image, and would be denser than anything, is air.

  Raises:
    InputError: no compressed image can be decoded on this machine.
  """
  if metaimage.is_slice(path):
    return metaimage.try_read_hu(os.fspath(path))
  dataset, fault = header.parse(path)
  if fault:
    return None, fault
  try:
    missing = [name for name in _NEEDED if dataset.get(name) in (None, '')]
    if missing:
      return None, header.Fault('unreadable', f'has no {missing[0]}')
    syntax.settle(dataset)
    claim = _impossible(dataset)
    if claim:
      return None, header.Fault('unreadable', claim)
    slope = float(dataset.RescaleSlope)
    intercept = float(dataset.RescaleIntercept)
    if str(dataset.get('RescaleType') or '').strip() not in _HU_TYPES:
      return None, header.Fault(
        'unreadable', 'has a RescaleType other than HU: its values are no HU'
      )
    if not np.isfinite([slope, intercept]).all():
      return None, header.Fault(
        'unreadable', f'has the rescale {slope:g} and {intercept:g}, no numbers'
      )
    raw = _pixels(dataset)
  except decoder.DecodingError as e:
    return None, header.undecodable(e)
  except decoder.StartError as e:
    raise errors.InputError(
      f'cannot start the process that decodes compressed DICOM images: {e}'
    ) from None
  # Broken pixel data surfaces as nearly any exception of NumPy or a codec.
  except Exception as e:
    return None, _missing_codec(dataset, e) or header.unreadable(e)
  if raw.ndim != 2:
    return None, header.Fault(
      'unreadable', f'holds {raw.shape} pixels, not an image'
    )
  hu = raw * slope + intercept
  if 'PixelPaddingValue' in dataset and hu.max() > _MAX_HU:
    hu[_is_padding(dataset, raw) & (hu > _MAX_HU)] = _AIR_HU
  return np.clip(np.rint(hu), _INT16.min, _INT16.max).astype(np.int16), None


def _is_padding(dataset: pydicom.Dataset, raw: np.ndarray) -> np.ndarray:
  """Which pixels the header says are no image (PS3.3, C.7.5.1.1.2)."""
  first = dataset.get('PixelPaddingValue')
  if not isinstance(first, int):
    return np.zeros(raw.shape, bool)
  last = dataset.get('PixelPaddingRangeLimit')
  low, high = sorted((first, last if isinstance(last, int) else first))
  values = raw.astype(np.int64)
  span = 1 << int(dataset.BitsAllocated)
  # Of unsigned pixels it is sometimes written as if they were signed.
  return ((values >= low) & (values <= high)) | (
    (values >= low + span) & (values <= high + span)
  )


def _impossible(dataset: pydicom.Dataset) -> str | None:
  """Why an image cannot be one slice of CT, from what it claims to be.

  Decoders allocate what is claimed, so it is judged before they run.
  """
  rows, columns = int(dataset.Rows), int(dataset.Columns)
  frames = int(dataset.get('NumberOfFrames') or 1)
  samples = int(dataset.get('SamplesPerPixel') or 1)
  bits = int(dataset.BitsAllocated)
  if frames != 1:
    return f'holds {frames:.6g} frames, not an image'
  if samples != 1:
    return f'has {samples} samples per pixel, and CT has 1'
  if bits not in _BITS:
    return f'has {bits} bits allocated per pixel'
  stored = int(dataset.get('BitsStored') or bits)
  high_bit = int(dataset.get('HighBit') or stored - 1)
  if high_bit > stored - 1:
    return (
      f'stores {stored} bits up to bit {high_bit}: whether its values are'
      ' shifted cannot be told'
    )
  if not 0 < rows * columns <= _MAX_PIXELS:
    return f'claims {rows} x {columns} pixels, and CT has up to {_MAX_PIXELS:,}'
  uid = dataset.file_meta.TransferSyntaxUID
  if not uid.is_encapsulated or uid == pydicom.uid.RLELossless:
    return None
  if not pixels.get_decoder(uid).is_available:
    return None  # nothing is decoded; the fault says what to install
  # One frame is all there is: a table of others would only mislead.
  for name in ('ExtendedOffsetTable', 'ExtendedOffsetTableLengths'):
    if name in dataset:
      delattr(dataset, name)
  stream = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
  size = codestream.size(stream)
  if size != (rows, columns, 1):
    found = f'{size.rows} x {size.columns} pixels' if size else 'no image'
    return f'claims {rows} x {columns} pixels, and its compressed data {found}'
  return None


def _pixels(dataset: pydicom.Dataset) -> np.ndarray:
  """The raw values; of compressed images, as another process decodes them."""
  uid = dataset.file_meta.TransferSyntaxUID
  if not uid.is_encapsulated:
    return dataset.pixel_array
  available = pixels.get_decoder(uid).available_plugins
  if not available:
    return dataset.pixel_array  # says what is missing
  # Values do not depend on what else is installed; of an image that one cannot
  # decode, pydicom would ask the others.
  name = next((p for p in _DECODERS if p in available), '')
  return _decode_apart(dataset, name)


def _missing_codec(
  dataset: pydicom.Dataset, e: Exception
) -> header.Fault | None:
  """The fault of a compressed image whose decoder is not installed."""
  uid = dataset.file_meta.get('TransferSyntaxUID', '')
  if 'missing dependencies' not in str(e) or not uid:
    return None
  high_throughput = 'High-Throughput' in uid.name
  package = _HIGH_THROUGHPUT_CODEC if high_throughput else _CODEC
  return header.Fault(
    'codec', f'is compressed ({uid.name}); run: pip install {package}'
  )
