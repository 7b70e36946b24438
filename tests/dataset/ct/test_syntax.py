"""The bytes of a file decide how it is read, not its meta header."""

import io

import dicom_files
import numpy as np
import pydicom
from pydicom import filebase
from pydicom import filewriter
from pydicom import uid
import pytest

from tfds_lidc.ct import header
from tfds_lidc.ct import index

_ROWS, _COLS = np.mgrid[:20, :30]
_RAW = (1024 + 7 * _ROWS - 5 * _COLS).astype(np.int16)
_NATIVE = {
  'implicit': uid.ImplicitVRLittleEndian,
  'explicit': uid.ExplicitVRLittleEndian,
  'big-endian': uid.ExplicitVRBigEndian,
}
_CLAIMS = {
  'the other one': {
    'implicit': uid.ExplicitVRLittleEndian,
    'explicit': uid.ImplicitVRLittleEndian,
  },
  'JPEG 2000': uid.JPEG2000Lossless,
  'JPEG': uid.JPEGBaseline8Bit,
  'RLE': uid.RLELossless,
  'none': None,
}


def _body(dataset, syntax):
  """Elements of an image without preamble and meta header, as bytes."""
  implicit = syntax == uid.ImplicitVRLittleEndian
  little_endian = syntax != uid.ExplicitVRBigEndian
  if not little_endian:
    dataset.PixelData = _RAW.astype('>i2').tobytes()
  body = io.BytesIO()
  file = filebase.DicomIO(body)
  file.is_implicit_VR, file.is_little_endian = implicit, little_endian
  filewriter.write_dataset(file, dataset)
  return body.getvalue()


def _meta(claim, *, preamble=True):
  """Bytes of a meta header that claims a transfer syntax, or none."""
  meta = pydicom.dataset.FileMetaDataset()
  meta.MediaStorageSOPClassUID = uid.CTImageStorage
  meta.MediaStorageSOPInstanceUID = '1.2.3'
  if claim:
    meta.TransferSyntaxUID = claim
  stream = io.BytesIO()
  filewriter.write_file_meta_info(stream, meta, enforce_standard=False)
  return (b'\0' * 128 + b'DICM') * preamble + stream.getvalue()


def _assert_read(path):
  """Checks that the image is read, and found truncated when it is cut off."""
  found, fault = header.read_header(path)
  assert fault is None
  assert found.series_uid == dicom_files.SERIES_UID
  np.testing.assert_array_equal(dicom_files.read_hu(path), _RAW - 1024)
  whole = path.read_bytes()
  path.write_bytes(whole[:-50])
  assert header.read_header(path)[1].kind == 'truncated'
  path.write_bytes(whole)


@pytest.fixture(name='image')
def _image(tmp_path):
  path = dicom_files.write_slice(tmp_path / 'whole.dcm', _RAW)
  return pydicom.dcmread(path)


@pytest.mark.parametrize('claim', _CLAIMS)
@pytest.mark.parametrize('body', ('implicit', 'explicit'))
def test_native_pixels_are_read_under_any_claim(tmp_path, image, body, claim):
  claimed = _CLAIMS[claim]
  if isinstance(claimed, dict):
    claimed = claimed[body]
  path = tmp_path / 'image.dcm'
  path.write_bytes(_meta(claimed) + _body(image, _NATIVE[body]))
  _assert_read(path)


@pytest.mark.parametrize('name', ('image.dcm', 'IM000001', 'image.old'))
@pytest.mark.parametrize('body', ('implicit', 'explicit'))
@pytest.mark.parametrize('meta', (False, True))
def test_file_without_preamble_is_read(tmp_path, image, body, meta, name):
  """Old archives have such files, with or without a meta header."""
  start = _meta(_NATIVE[body], preamble=False) if meta else b''
  path = tmp_path / name
  path.write_bytes(start + _body(image, _NATIVE[body]))
  _assert_read(path)
  found = index.load(tmp_path, show_progress=False)
  assert str(path) in {
    s.path for series in found.series.values() for s in series.slices
  }


def test_big_endian_body_without_meta_header_is_read(tmp_path, image):
  path = tmp_path / 'image'
  path.write_bytes(_body(image, _NATIVE['big-endian']))
  assert header.read_header(path)[1] is None
  np.testing.assert_array_equal(dicom_files.read_hu(path), _RAW - 1024)


@pytest.mark.parametrize('claim', (*_NATIVE, *_CLAIMS, 'JPEG Lossless'))
@pytest.mark.parametrize('found', ('RLE', 'JPEG-LS'))
def test_compressed_pixels_are_read_under_any_claim(
  tmp_path, image, found, claim
):
  """The meta header claims a native or another compressed syntax."""
  claimed = {
    **_NATIVE,
    **_CLAIMS,
    'the other one': {
      'RLE': uid.JPEGLSLossless,
      'JPEG-LS': uid.RLELossless,
    }.get(found),
    'JPEG Lossless': uid.JPEGLosslessSV1,
  }[claim]
  if claimed == uid.ExplicitVRBigEndian:
    pytest.skip('pydicom cannot read it')
  image.compress({'RLE': uid.RLELossless, 'JPEG-LS': uid.JPEGLSLossless}[found])
  path = tmp_path / 'image.dcm'
  path.write_bytes(_meta(claimed) + _body(image, uid.ExplicitVRLittleEndian))
  _assert_read(path)


@pytest.mark.parametrize(
  'text',
  (
    b'\x08\x00',
    b'\x08\x00\x05\x00' + b'\xff' * 200,
    b'\x08\x00\x05\x00\x02\0\0\0' + bytes(range(200)),
    b'\x08\x00\x77\x00UI\x04\x001.2\0' + bytes(200),
    b'The patient, in words. ' * 20,
    bytes(range(256)) * 4,
  ),
)
def test_file_that_only_resembles_dicom_is_neither_image_nor_fault(
  tmp_path, text
):
  """Folders of CT also hold files of other programs."""
  path = tmp_path / 'notes'
  path.write_bytes(text)
  assert header.read_header(path) == (None, None)
