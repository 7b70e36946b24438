"""Reads one CT image as HU.

Compressed images are decoded in another process, see `decoder`. A file that
claims to be larger than a CT image is rejected before it is decoded.
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
_MAX_PIXELS = 4096 * 4096  # beyond any CT image
_NEEDED = (
  'Rows',
  'Columns',
  'BitsAllocated',
  'RescaleSlope',
  'RescaleIntercept',
)
_BITS = (1, 8, 16, 32)
# The largest value of a scanner with 12 bits; metal reaches it (PS3.3 C.11.1).
_MAX_HU = 3071
_AIR_HU = -1024
# Values of RescaleType for HU; CT has HU even if it is unspecified ('US').
_HU_TYPES = ('', 'HU', 'HU_MOD', 'US')

# Decoders that are installed with this package.
_DECODERS = ('pydicom', 'pillow', 'pyjpegls')
# Packages for images that these cannot decode: the first for JPEG Lossless and
# JPEG Extended, the second for High-Throughput JPEG 2000, which GDCM does not
# support. The extra `jpeg` installs all of them.
_CODEC = 'python-gdcm'
_HIGH_THROUGHPUT_CODEC = 'pylibjpeg pylibjpeg-openjpeg'

# ((rows, columns) int16 HU, None), or (None, what is wrong).
Reading = tuple[np.ndarray | None, header.Fault | None]

_decode_apart = decoder.Decoder()


def try_read_hu(path: str | os.PathLike[str]) -> Reading:
  """Reads one CT image.

  Args:
    path: a DICOM file, or a slice of `metaimage`.

  Returns:
    (HU, None), or (None, what is wrong). The HU are (rows, columns) int16:
    raw * RescaleSlope + RescaleIntercept, rounded if the slope is fractional,
    and saturated to int16. Padding (PixelPaddingValue) that would be denser
    than anything in CT becomes air.

  Raises:
    InputError: the process that decodes compressed images does not start.
  """
  if metaimage.is_slice(path):
    return metaimage.try_read_hu(os.fspath(path))
  dataset, fault = header.parse(path)
  if dataset is None:
    return None, fault
  try:
    missing = [name for name in _NEEDED if dataset.get(name) in (None, '')]
    if missing:
      return None, header.Fault('unreadable', f'has no {missing[0]}')
    syntax.correct(dataset)
    claim = _impossible(dataset)
    if claim:
      return None, header.Fault('unreadable', claim)
    slope = float(dataset.RescaleSlope)
    intercept = float(dataset.RescaleIntercept)
    if str(dataset.get('RescaleType') or '').strip() not in _HU_TYPES:
      return None, header.Fault(
        'unreadable', 'has a RescaleType other than HU: its values are not HU'
      )
    if not np.isfinite([slope, intercept]).all():
      return None, header.Fault(
        'unreadable',
        f'has the rescale slope {slope:g} and intercept {intercept:g}, which '
        'are not both finite',
      )
    raw = _pixels(dataset)
  except decoder.DecodingError as e:
    return None, header.undecodable(e)
  except decoder.StartError as e:
    raise errors.InputError(
      f'cannot start the process that decodes compressed DICOM images: {e}'
    ) from None
  # Broken pixel data can raise nearly any exception of NumPy or a codec.
  except Exception as e:
    return None, _missing_codec(dataset, e) or header.unreadable(e)
  if raw.ndim != 2:
    return None, header.Fault(
      'unreadable', f'has pixels of shape {raw.shape}, not an image'
    )
  hu = raw * slope + intercept
  if 'PixelPaddingValue' in dataset and hu.max() > _MAX_HU:
    hu[_is_padding(dataset, raw) & (hu > _MAX_HU)] = _AIR_HU
  return np.clip(np.rint(hu), _INT16.min, _INT16.max).astype(np.int16), None


def _is_padding(dataset: pydicom.Dataset, raw: np.ndarray) -> np.ndarray:
  """Returns a mask of the padding that the header names (PS3.3, C.7.5.1.1.2).

  Args:
    dataset: the image, with PixelPaddingValue.
    raw: (rows, columns), its stored values.

  Returns:
    (rows, columns) bool.
  """
  first = dataset.get('PixelPaddingValue')
  if not isinstance(first, int):
    return np.zeros(raw.shape, bool)
  last = dataset.get('PixelPaddingRangeLimit')
  low, high = sorted((first, last if isinstance(last, int) else first))
  values = raw.astype(np.int64)
  span = 1 << int(dataset.BitsAllocated)
  # Some writers store a signed padding value beside unsigned pixels.
  return ((values >= low) & (values <= high)) | (
    (values >= low + span) & (values <= high + span)
  )


def _impossible(dataset: pydicom.Dataset) -> str | None:
  """Says why an image cannot be one slice of CT, or returns None.

  This runs before decoders do, as they allocate the size that an image claims.
  """
  rows, columns = int(dataset.Rows), int(dataset.Columns)
  frames = int(dataset.get('NumberOfFrames') or 1)
  samples = int(dataset.get('SamplesPerPixel') or 1)
  bits = int(dataset.BitsAllocated)
  if frames != 1:
    return f'has {frames:.6g} frames, not one image'
  if samples != 1:
    return f'has {samples} samples per pixel, but CT has 1'
  if bits not in _BITS:
    return f'has {bits} bits allocated per pixel'
  stored = int(dataset.get('BitsStored') or bits)
  high_bit = int(dataset.get('HighBit') or stored - 1)
  if high_bit > stored - 1:
    return (
      f'stores {stored} bits up to bit {high_bit}: its values may be shifted'
    )
  if not 0 < rows * columns <= _MAX_PIXELS:
    return f'claims {rows} x {columns} pixels, but CT has up to {_MAX_PIXELS:,}'
  uid = dataset.file_meta.TransferSyntaxUID
  if not uid.is_encapsulated or uid == pydicom.uid.RLELossless:
    return None
  if not pixels.get_decoder(uid).is_available:
    return None  # `_pixels` raises, and the fault names the missing package
  # With a single frame, a table of offsets could only be wrong.
  for name in ('ExtendedOffsetTable', 'ExtendedOffsetTableLengths'):
    if name in dataset:
      delattr(dataset, name)
  stream = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
  size = codestream.size(stream)
  if size != (rows, columns, 1):
    found = f'{size.rows} x {size.columns} pixels' if size else 'no image'
    return f'claims {rows} x {columns} pixels, but its compressed data {found}'
  return None


def _pixels(dataset: pydicom.Dataset) -> np.ndarray:
  """Returns the raw values; another process decodes compressed ones."""
  uid = dataset.file_meta.TransferSyntaxUID
  if not uid.is_encapsulated:
    return dataset.pixel_array
  available = pixels.get_decoder(uid).available_plugins
  if not available:
    return dataset.pixel_array  # raises, and names the missing package
  # A fixed order of decoders, so that values do not depend on what else is
  # installed. pydicom by itself would also try other decoders after a failure.
  name = next((p for p in _DECODERS if p in available), '')
  return _decode_apart(dataset, name)


def _missing_codec(
  dataset: pydicom.Dataset, e: Exception
) -> header.Fault | None:
  """Returns the fault of an image whose decoder is not installed, or None."""
  uid = dataset.file_meta.get('TransferSyntaxUID', '')
  if 'missing dependencies' not in str(e) or not uid:
    return None
  high_throughput = 'High-Throughput' in uid.name
  package = _HIGH_THROUGHPUT_CODEC if high_throughput else _CODEC
  return header.Fault(
    'codec', f'is compressed ({uid.name}); run: pip install {package}'
  )
