"""HU are the same for every transfer syntax and pixel representation."""

import io

import dicom_files
import jpeg_lossless
import numpy as np
from PIL import Image
import pydicom
from pydicom import uid
import pytest

from tfds_lidc import build
from tfds_lidc.ct import header

_ROWS, _COLS = np.mgrid[:48, :64]
_PADDED = _ROWS + _COLS < 20  # outside the field of view
_RAMP = 7 * _ROWS - 5 * _COLS
_NOISE = np.random.default_rng(0).integers(0, 1 << 16, _RAMP.shape)

# What scanners write: (raw values, stored bits, slope, intercept).
_KINDS = {
  'unsigned': ((1024 + _RAMP).astype(np.uint16), 12, 1, -1024),
  'unsigned in all bits': (_NOISE.astype(np.uint16), 16, 1, -1024),
  'signed, padded with -2000': (
    np.where(_PADDED, -2000, 20 * _RAMP).astype(np.int16),
    16,
    1,
    0,
  ),
  'signed in 12 bits, padded with -2048': (
    np.where(_PADDED, -2048, _RAMP).astype(np.int16),
    12,
    1,
    -1024,
  ),
  'signed in all bits': (_NOISE.astype(np.int16), 16, 1, 0),
  'slope of one half': ((3000 + _RAMP).astype(np.uint16), 16, 0.5, -1000),
}
_SYNTAXES = {
  'native': None,
  'RLE': uid.RLELossless,
  'JPEG-LS': uid.JPEGLSLossless,
  'JPEG 2000': uid.JPEG2000Lossless,
  'JPEG Lossless': uid.JPEGLosslessSV1,
  'JPEG Lossless, process 14': uid.JPEGLossless,
}
# Syntaxes that only the encoder of the tests can write.
_OWN_ENCODER = (uid.JPEGLosslessSV1, uid.JPEGLossless)
_EXTRA = ('JPEG 2000', 'JPEG Lossless', 'JPEG Lossless, process 14')

_every_syntax = pytest.mark.parametrize(
  'syntax',
  [
    pytest.param(s, marks=pytest.mark.extra if s in _EXTRA else (), id=s)
    for s in _SYNTAXES
  ],
)


def _compress(path, syntax, bits=16):
  """Compresses a file in place; skips the test if the codec is missing."""
  transfer_syntax = _SYNTAXES[syntax]
  dataset = pydicom.dcmread(path)
  dataset.BitsStored, dataset.HighBit = bits, bits - 1
  if transfer_syntax in _OWN_ENCODER:
    pytest.importorskip('gdcm', reason='needs the extra jpeg')
    stream = jpeg_lossless.encode(dataset.pixel_array, bits)
    _set_pixels(dataset, transfer_syntax, stream)
  elif transfer_syntax:
    if syntax in _EXTRA:
      pytest.importorskip('openjpeg', reason='needs the extra jpeg')
    dataset.compress(transfer_syntax)
  dataset.save_as(path)


def _set_pixels(dataset, transfer_syntax, stream):
  dataset.file_meta.TransferSyntaxUID = transfer_syntax
  dataset.PixelData = pydicom.encaps.encapsulate([stream])
  dataset['PixelData'].VR = 'OB'
  dataset['PixelData'].is_undefined_length = True


def _hu(raw, slope, intercept):
  hu = raw.astype(np.float64) * slope + intercept
  floor = np.floor(hu)
  # Halves are rounded to even.
  up = (hu - floor > 0.5) | ((hu - floor == 0.5) & (floor % 2 == 1))
  return np.clip(floor + up, -32768, 32767)


@pytest.mark.parametrize('kind', _KINDS)
@_every_syntax
def test_hu_are_those_of_the_raw_values(tmp_path, syntax, kind):
  raw, bits, slope, intercept = _KINDS[kind]
  path = dicom_files.write_slice(
    tmp_path / '1.dcm', raw, slope=slope, intercept=intercept
  )
  _compress(path, syntax, bits)
  assert header.read_header(path)[1] is None
  hu = dicom_files.read_hu(path)
  assert hu.dtype == np.int16
  np.testing.assert_array_equal(hu, _hu(raw, slope, intercept))


@_every_syntax
def test_truncation_is_found_without_decoding(tmp_path, syntax):
  raw = _KINDS['unsigned'][0]
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw)
  _compress(path, syntax)
  path.write_bytes(path.read_bytes()[:-50])
  assert header.read_header(path)[1].kind == 'truncated'


@_every_syntax
def test_build_is_the_same_from_compressed_files(tmp_path, syntax):
  plain = dicom_files.write_series(tmp_path / 'plain')
  compressed = dicom_files.write_series(tmp_path / 'compressed')
  for path in compressed.values():
    _compress(path, syntax)
  if _SYNTAXES[syntax]:
    sizes = [
      sum(p.stat().st_size for p in s.values()) for s in (compressed, plain)
    ]
    assert sizes[0] < sizes[1]
  records = [
    build.build(
      'all', lidc_dir=tmp_path / name, data_dir=tmp_path / f'{name}_data'
    ).as_data_source('train')
    for name in ('plain', 'compressed')
  ]
  assert len(records[0]) == len(records[1]) == 4
  for one, other in zip(*records, strict=True):
    assert one['nodule_id'] == other['nodule_id']
    np.testing.assert_array_equal(one['image'], other['image'])


def test_jpeg_2000_by_pillow(tmp_path):
  """Pillow is always installed, so JPEG 2000 does not need the extra."""
  raw = _KINDS['unsigned in all bits'][0]
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw)
  dataset = pydicom.dcmread(path)
  stream = io.BytesIO()
  Image.fromarray(raw).save(stream, 'JPEG2000', no_jp2=True)
  _set_pixels(dataset, uid.JPEG2000Lossless, stream.getvalue())
  dataset.save_as(path)
  assert (
    'pillow'
    in pydicom.pixels.get_decoder(uid.JPEG2000Lossless).available_plugins
  )
  np.testing.assert_array_equal(dicom_files.read_hu(path), _hu(raw, 1, -1024))


def test_bits_above_the_stored_bits_are_ignored(tmp_path):
  """Twelve of 16 bits are stored; old files keep overlays in the others."""
  raw = np.array([[0xF001, 0x0FFF], [0x0800, 0x77FF]], np.uint16)
  for signed, expected in (
    (0, [[1, 4095], [2048, 2047]]),
    (1, [[1, -1], [-2048, 2047]]),
  ):
    path = dicom_files.write_slice(tmp_path / '1.dcm', raw, intercept=0)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PixelRepresentation = signed
    dataset.save_as(path)
    np.testing.assert_array_equal(dicom_files.read_hu(path), expected)


@pytest.mark.parametrize('padding', [-2048, -2000])
def test_low_padding_is_not_replaced(tmp_path, padding):
  """It does not matter whether the file declares it."""
  raw = np.full((2, 2), padding, np.int16)
  path = dicom_files.write_slice(tmp_path / '1.dcm', raw, intercept=0)
  undeclared = dicom_files.read_hu(path)
  dataset = pydicom.dcmread(path)
  dataset.add_new('PixelPaddingValue', 'SS', padding)
  dataset.save_as(path)
  np.testing.assert_array_equal(dicom_files.read_hu(path), undeclared)
  assert (undeclared == padding).all()


@pytest.mark.parametrize(
  ('dtype', 'vr', 'value', 'limit', 'raw'),
  (
    (np.uint16, 'US', 63536, None, 63536),
    (np.uint16, 'US', 65535, None, 65535),
    # The padding value is written as if the pixels were signed.
    (np.uint16, 'SS', -2000, None, 63536),
    (np.uint16, 'US', 60000, 65535, 62000),
    (np.int16, 'SS', 32767, None, 32767),
  ),
)
def test_padding_denser_than_metal_becomes_air(
  tmp_path, dtype, vr, value, limit, raw
):
  pixels = np.array([[raw, 1100], [0, 4200]], dtype)
  path = dicom_files.write_slice(tmp_path / '1.dcm', pixels)
  dataset = pydicom.dcmread(path)
  dataset.add_new('PixelPaddingValue', vr, value)
  if limit:
    dataset.add_new('PixelPaddingRangeLimit', vr, limit)
  dataset.save_as(path)
  hu = dicom_files.read_hu(path)
  # Metal is not padding and keeps its value.
  np.testing.assert_array_equal(hu, [[-1024, 76], [-1024, 3176]])
