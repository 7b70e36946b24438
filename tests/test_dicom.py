"""Series are found by UID and slices by z; faults are named."""

import os

import dicom_files
import numpy as np
import pydicom
import pytest

from tfds_lidc import annotations
from tfds_lidc import dicom
from tfds_lidc import dicom_header
from tfds_lidc import errors

_RAW = np.arange(16, dtype=np.int16).reshape(4, 4)


@dicom_files.needs_real_series
def test_real_series():
  series = dicom.index(dicom_files.REAL_DIR)
  assert set(series) == {dicom_files.SERIES_UID}
  found = series[dicom_files.SERIES_UID]
  assert found.patient_id == 'LIDC-IDRI-0003'
  np.testing.assert_allclose(
    [s.z_mm for s in found.slices],
    annotations.slice_positions(dicom_files.SCAN_ID),
  )


@dicom_files.needs_real_series
def test_real_hu_equal_pydicoms():
  series = dicom.index(dicom_files.REAL_DIR)[dicom_files.SERIES_UID]
  for z_mm in dicom_files.needed_z():
    path = series.path_at(z_mm)
    dataset = pydicom.dcmread(path)
    assert float(dataset.ImagePositionPatient[2]) == z_mm
    hu = dicom.read_hu(path)
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(
      hu,
      dataset.pixel_array.astype(int) * int(dataset.RescaleSlope)
      + int(dataset.RescaleIntercept),
    )


def test_index_orders_by_z_in_any_layout(tmp_path):
  dicom_files.write_slice(tmp_path / 'a' / 'z.dcm', _RAW, -5.0, '1.2')
  dicom_files.write_slice(tmp_path / 'b' / 'no_suffix', _RAW, -10.0, '1.2')
  dicom_files.write_slice(tmp_path / 'b' / '1-001.dcm', _RAW, 3.0, '1.3')
  series = dicom.index(tmp_path)
  assert set(series) == {'1.2', '1.3'}
  assert [s.z_mm for s in series['1.2'].slices] == [-10.0, -5.0]
  assert series['1.2'].path_at(-10.05) == str(tmp_path / 'b' / 'no_suffix')
  assert series['1.2'].path_at(-7.0) is None


def test_index_follows_links_once(tmp_path):
  dicom_files.write_slice(tmp_path / 'real' / '1.dcm', _RAW, 1.0, '1.2')
  (tmp_path / 'lidc').mkdir()
  os.symlink(tmp_path / 'real', tmp_path / 'lidc' / 'patient')
  os.symlink(tmp_path / 'lidc', tmp_path / 'lidc' / 'loop')
  assert len(dicom.index(tmp_path / 'lidc')['1.2'].slices) == 1


def test_index_ignores_what_is_not_ct(tmp_path):
  dicom_files.write_slice(tmp_path / '1.dcm', _RAW, 1.0, '1.2')
  dicom_files.write_slice(tmp_path / '2.dcm', _RAW, 1.0, '1.4', modality='DX')
  (tmp_path / 'LICENSE').write_text('CC BY 3.0')
  (tmp_path / 'annotations.xml').write_text('<LidcReadMessage/>')
  (tmp_path / '._1.dcm').write_bytes(b'resource fork')
  assert set(dicom.index(tmp_path)) == {'1.2'}


def test_same_z_twice_takes_the_lower_instance(tmp_path):
  for name, instance in (('a.dcm', 2), ('b.dcm', 1)):
    path = dicom_files.write_slice(tmp_path / name, _RAW, 1.0, '1.2')
    dataset = pydicom.dcmread(path)
    dataset.InstanceNumber = instance
    dataset.save_as(path)
  assert dicom.index(tmp_path)['1.2'].path_at(1.0) == str(tmp_path / 'b.dcm')


@pytest.mark.parametrize(
  'raw, slope, intercept, hu',
  [
    (np.int16(-2000), 1, -1024, -3024),
    (np.uint16(65535), 1, -1024, 32767),  # would wrap around to -1025
    (np.int16(-32768), 1, -1024, -32768),  # would wrap around to 31744
    (np.int16(3), 0.5, 0, 2),  # 1.5, not truncated to 1
    (np.int16(30000), 2, 0, 32767),
  ],
)
def test_hu_are_int16_without_wrap(tmp_path, raw, slope, intercept, hu):
  path = dicom_files.write_slice(
    tmp_path / '1.dcm', np.full((2, 2), raw), slope=slope, intercept=intercept
  )
  np.testing.assert_array_equal(dicom.read_hu(path), np.full((2, 2), hu))


def _error(function, *args):
  with pytest.raises(errors.InputError) as e:
    function(*args)
  return str(e.value)


def test_directory_without_ct(tmp_path):
  missing = tmp_path / 'missing'
  assert str(missing) in _error(dicom.index, missing)
  assert 'does not exist' in _error(dicom.index, missing)
  assert 'is empty' in _error(dicom.index, tmp_path)
  (tmp_path / 'readme.txt').write_text('nothing here')
  assert 'not a directory' in _error(dicom.index, tmp_path / 'readme.txt')
  assert '0 CT images among 1 files' in _error(dicom.index, tmp_path)


@pytest.mark.parametrize(
  'size, says',
  [
    (0, 'not a DICOM file'),
    (100, 'not a DICOM file'),
    (300, 'breaks off'),
    (600, 'breaks off'),
  ],
)
def test_broken_header_names_the_file(tmp_path, size, says):
  whole = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  broken = tmp_path / '2.dcm'
  broken.write_bytes(whole.read_bytes()[:size])
  message = _error(dicom.index, tmp_path)
  assert str(broken) in message and says in message


def test_broken_pixels_name_the_file(tmp_path):
  path = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  path.write_bytes(path.read_bytes()[:-4])
  dicom.index(tmp_path)  # the header is whole
  assert str(path) in _error(dicom.read_hu, path)


def test_missing_rescale_names_the_file(tmp_path):
  path = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  dataset = pydicom.dcmread(path)
  del dataset.RescaleSlope
  dataset.save_as(path)
  message = _error(dicom.read_hu, path)
  assert str(path) in message and 'RescaleSlope' in message


@pytest.mark.parametrize(
  'syntax, package',
  [
    (pydicom.uid.JPEGLosslessSV1, 'pip install python-gdcm'),
    (pydicom.uid.JPEGExtended12Bit, 'pip install python-gdcm'),
    (pydicom.uid.HTJ2KLossless, 'pip install pylibjpeg pylibjpeg-openjpeg'),
  ],
)
def test_a_missing_codec_is_named(tmp_path, syntax, package, monkeypatch):
  path = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  dataset = pydicom.dcmread(path)
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.PixelData = pydicom.encaps.encapsulate([bytes(100)])
  dataset['PixelData'].VR = 'OB'
  dataset['PixelData'].is_undefined_length = True
  dataset.save_as(path)
  decoder = pydicom.pixels.get_decoder(syntax)
  # As on a machine with no codec; what is installed here does not matter.
  monkeypatch.setattr(decoder, '_unavailable', {'pylibjpeg': ('pylibjpeg',)})
  monkeypatch.setattr(decoder, '_available', {})
  message = _error(dicom.read_hu, path)
  assert str(path) in message and package in message
  assert syntax.name in message and 'delete' not in message


def test_unfinished_pixels_show_without_reading_them(tmp_path):
  whole = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  assert dicom_header.read_header(whole)[1] is None
  whole.write_bytes(whole.read_bytes()[:-1])
  header, fault = dicom_header.read_header(whole)
  assert (header.series_uid, fault.kind) == (
    dicom_files.SERIES_UID,
    'truncated',
  )
