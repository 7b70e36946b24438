"""Series are found by UID and slices by z; faulty files are reported."""

import os
import tracemalloc

import dicom_files
import numpy as np
import pydicom
import pytest

from tfds_lidc import errors
from tfds_lidc.ct import header as dicom_header
from tfds_lidc.ct import index as series_index
from tfds_lidc.ct import pixels as dicom_pixels
from tfds_lidc.nodules import annotations

_RAW = np.arange(16, dtype=np.int16).reshape(4, 4)


@dicom_files.needs_real_series
def test_positions_of_the_real_series_are_those_of_the_database():
  series = dicom_files.series_of(dicom_files.REAL_DIR)
  assert set(series) == {dicom_files.SERIES_UID}
  found = series[dicom_files.SERIES_UID]
  assert found.patient_id == 'LIDC-IDRI-0003'
  np.testing.assert_allclose(
    [s.z_mm for s in found.slices],
    annotations.slice_positions(dicom_files.SCAN_ID),
  )


@dicom_files.needs_real_series
def test_hu_of_the_real_series_equal_those_of_pydicom():
  series = dicom_files.series_of(dicom_files.REAL_DIR)[dicom_files.SERIES_UID]
  for z_mm in dicom_files.needed_z():
    path = series.path_at(z_mm)
    dataset = pydicom.dcmread(path)
    assert float(dataset.ImagePositionPatient[2]) == z_mm
    hu = dicom_files.read_hu(path)
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(
      hu,
      dataset.pixel_array.astype(int) * int(dataset.RescaleSlope)
      + int(dataset.RescaleIntercept),
    )


def test_index_orders_slices_by_z_in_any_layout(tmp_path):
  dicom_files.write_slice(tmp_path / 'a' / 'z.dcm', _RAW, -5.0, '1.2')
  dicom_files.write_slice(tmp_path / 'b' / 'no_suffix', _RAW, -10.0, '1.2')
  dicom_files.write_slice(tmp_path / 'b' / '1-001.dcm', _RAW, 3.0, '1.3')
  series = dicom_files.series_of(tmp_path)
  assert set(series) == {'1.2', '1.3'}
  assert [s.z_mm for s in series['1.2'].slices] == [-10.0, -5.0]
  assert series['1.2'].path_at(-10.05) == str(tmp_path / 'b' / 'no_suffix')
  assert series['1.2'].path_at(-7.0) is None


def test_index_follows_a_link_once(tmp_path):
  dicom_files.write_slice(tmp_path / 'real' / '1.dcm', _RAW, 1.0, '1.2')
  (tmp_path / 'lidc').mkdir()
  os.symlink(tmp_path / 'real', tmp_path / 'lidc' / 'patient')
  os.symlink(tmp_path / 'lidc', tmp_path / 'lidc' / 'loop')
  assert len(dicom_files.series_of(tmp_path / 'lidc')['1.2'].slices) == 1


def test_index_ignores_files_other_than_ct(tmp_path):
  dicom_files.write_slice(tmp_path / '1.dcm', _RAW, 1.0, '1.2')
  dicom_files.write_slice(tmp_path / '2.dcm', _RAW, 1.0, '1.4', modality='DX')
  (tmp_path / 'LICENSE').write_text('CC BY 3.0')
  (tmp_path / 'annotations.xml').write_text('<LidcReadMessage/>')
  (tmp_path / '._1.dcm').write_bytes(b'resource fork')
  assert set(dicom_files.series_of(tmp_path)) == {'1.2'}


def test_lower_instance_is_used_of_two_slices_at_one_z(tmp_path):
  for name, instance in (('a.dcm', 2), ('b.dcm', 1)):
    path = dicom_files.write_slice(tmp_path / name, _RAW, 1.0, '1.2')
    dataset = pydicom.dcmread(path)
    dataset.InstanceNumber = instance
    dataset.save_as(path)
  assert dicom_files.series_of(tmp_path)['1.2'].path_at(1.0) == str(
    tmp_path / 'b.dcm'
  )


@pytest.mark.parametrize(
  'raw, slope, intercept, hu',
  [
    (np.int16(-2000), 1, -1024, -3024),
    (np.uint16(65535), 1, -1024, 32767),  # would wrap around to -1025
    (np.int16(-32768), 1, -1024, -32768),  # would wrap around to 31744
    (np.int16(3), 0.5, 0, 2),  # 1.5 is not truncated to 1
    (np.int16(30000), 2, 0, 32767),
  ],
)
def test_hu_saturate_and_round(tmp_path, raw, slope, intercept, hu):
  path = dicom_files.write_slice(
    tmp_path / '1.dcm', np.full((2, 2), raw), slope=slope, intercept=intercept
  )
  np.testing.assert_array_equal(dicom_files.read_hu(path), np.full((2, 2), hu))


def _error(function, *args):
  with pytest.raises(errors.InputError) as e:
    function(*args)
  return str(e.value)


def _fault(path):
  hu, fault = dicom_pixels.try_read_hu(path)
  assert hu is None
  return fault


def test_error_of_a_directory_without_ct_names_it(tmp_path):
  missing = tmp_path / 'missing'
  assert str(missing) in _error(series_index.load, missing)
  assert 'does not exist' in _error(series_index.load, missing)
  assert 'is empty' in _error(series_index.load, tmp_path)
  (tmp_path / 'readme.txt').write_text('nothing here')
  assert 'not a directory' in _error(series_index.load, tmp_path / 'readme.txt')
  assert '0 CT images among 1 files' in _error(series_index.load, tmp_path)


@pytest.mark.parametrize(
  'size, message',
  [
    (0, 'not a DICOM file'),
    (100, 'not a DICOM file'),
    (300, 'ends inside'),
    (600, 'ends inside'),
  ],
)
def test_fault_of_a_broken_header_names_the_file(tmp_path, size, message):
  whole = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  broken = tmp_path / '2.dcm'
  broken.write_bytes(whole.read_bytes()[:size])
  (fault,) = series_index.load(tmp_path).faults
  assert fault.path == str(broken) and message in fault.reason


def test_broken_pixels_are_a_fault_but_the_header_is_read(tmp_path):
  path = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  path.write_bytes(path.read_bytes()[:-4])
  header, _ = dicom_header.read_header(path)
  assert header.series_uid == dicom_files.SERIES_UID
  assert _fault(path).kind == 'unreadable'


def test_fault_names_a_missing_rescale(tmp_path):
  path = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  dataset = pydicom.dcmread(path)
  del dataset.RescaleSlope
  dataset.save_as(path)
  assert 'RescaleSlope' in _fault(path).reason


@pytest.mark.parametrize(
  'syntax, package',
  [
    (pydicom.uid.JPEGLosslessSV1, 'pip install python-gdcm'),
    (pydicom.uid.JPEGExtended12Bit, 'pip install python-gdcm'),
    (pydicom.uid.HTJ2KLossless, 'pip install pylibjpeg pylibjpeg-openjpeg'),
  ],
)
def test_fault_names_the_package_of_a_missing_codec(
  tmp_path, syntax, package, monkeypatch
):
  path = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  dataset = pydicom.dcmread(path)
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.PixelData = pydicom.encaps.encapsulate([bytes(100)])
  dataset['PixelData'].VR = 'OB'
  dataset['PixelData'].is_undefined_length = True
  dataset.save_as(path)
  decoder = pydicom.pixels.get_decoder(syntax)
  # Hides the codecs that are installed on this machine.
  monkeypatch.setattr(decoder, '_unavailable', {'pylibjpeg': ('pylibjpeg',)})
  monkeypatch.setattr(decoder, '_available', {})
  fault = _fault(path)
  assert fault.kind == 'codec'
  assert package in fault.reason and syntax.name in fault.reason


def test_truncated_pixels_are_found_without_reading_them(tmp_path):
  whole = dicom_files.write_slice(tmp_path / '1.dcm', _RAW)
  assert dicom_header.read_header(whole)[1] is None
  whole.write_bytes(whole.read_bytes()[:-1])
  header, fault = dicom_header.read_header(whole)
  assert (header.series_uid, fault.kind) == (
    dicom_files.SERIES_UID,
    'truncated',
  )


def _write_small_file(path, syntax=None, stream=None, **tags):
  """Writes 8 x 8 pixels, or `stream` in their place, with other `tags`."""
  pixels = np.zeros((8, 8), np.uint16)
  dicom_files.write_slice(path, pixels)
  dataset = pydicom.dcmread(path)
  if syntax:
    dataset.file_meta.TransferSyntaxUID = syntax
  if stream:
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset['PixelData'].VR = 'OB'
  for name, value in tags.items():
    setattr(dataset, name, value)
  dataset.save_as(path)
  return path


def _peak_mib(path):
  """(MiB that a failing `try_read_hu` allocates at most, its reason)."""
  tracemalloc.start()
  reason = _fault(path).reason
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return peak / 2**20, reason


# Headers of a JPEG-LS and a JPEG 2000 frame of 60,000 x 60,000 without data.
_SIDE = (60_000).to_bytes(2, 'big')
_JPEG_LS = (
  b'\xff\xd8\xff\xf7\0\x0b\x10' + _SIDE * 2 + b'\x01\x01\x11\0' + bytes(9)
)
_J2K = (
  b'\xff\x4f\xff\x51\0\x29\0\0'
  + (60_000).to_bytes(4, 'big') * 2
  + bytes(8)
  + (60_000).to_bytes(4, 'big') * 2
  + bytes(8)
  + b'\0\x01\x0f\x01\x01'
)


@pytest.mark.parametrize(
  ('syntax', 'stream', 'tags', 'message'),
  [
    (None, None, {'Rows': 60_000, 'Columns': 60_000}, '60000 x 60000'),
    (
      pydicom.uid.RLELossless,
      bytes(64),
      {'Rows': 60_000, 'Columns': 60_000},
      '60000 x 60000',
    ),
    (pydicom.uid.JPEGLSLossless, _JPEG_LS, {}, '60000 x 60000'),
    (None, None, {'NumberOfFrames': 10**9}, '1e+09 frames'),
    (None, None, {'SamplesPerPixel': 3}, '3 samples'),
    (None, None, {'BitsAllocated': 64}, '64 bits'),
  ],
)
def test_memory_for_a_claimed_size_is_not_allocated(
  tmp_path, syntax, stream, tags, message
):
  path = _write_small_file(tmp_path / '1.dcm', syntax, stream, **tags)
  assert path.stat().st_size < 10_000
  mebibytes, reason = _peak_mib(path)
  assert message in reason
  assert mebibytes < 1


def test_jpeg_2000_of_a_claimed_size_is_refused_before_decoding(
  tmp_path, monkeypatch
):
  path = _write_small_file(
    tmp_path / '1.dcm', pydicom.uid.JPEG2000Lossless, _J2K
  )
  decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEG2000Lossless)
  monkeypatch.setattr(decoder, '_available', {'any': lambda *_: b''})
  assert '60000 x 60000' in _fault(path).reason


def test_deflate_bomb_is_refused(tmp_path):
  path = tmp_path / '1.dcm'
  dicom_files.write_slice(path, np.zeros((8, 8), np.uint16))
  dataset = pydicom.dcmread(path)
  dataset.file_meta.TransferSyntaxUID = (
    pydicom.uid.DeflatedExplicitVRLittleEndian
  )
  dataset.PixelData = bytes(300 << 20)
  dataset.save_as(path)
  assert path.stat().st_size < 1 << 20
  for read in (dicom_pixels.try_read_hu, dicom_header.read_header):
    tracemalloc.start()
    _, fault = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 'inflates to more than 256 MiB' in fault.reason
    assert peak < 16 << 20


def test_memory_for_a_claimed_length_is_not_allocated(tmp_path):
  path = tmp_path / '1.dcm'
  dicom_files.write_slice(path, np.zeros((8, 8), np.uint16))
  data = path.read_bytes()
  at = data.index(b'\xe0\x7f\x10\x00OW')
  path.write_bytes(data[: at + 8] + b'\xfe\xff\xff\x7f' + data[at + 12 :])
  tracemalloc.start()
  dicom_pixels.try_read_hu(path)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 16 << 20


def test_pipe_is_a_fault(tmp_path):
  os.mkfifo(tmp_path / '1.dcm')
  _, fault = dicom_header.read_header(tmp_path / '1.dcm')
  assert 'not a regular file' in fault.reason


@pytest.mark.parametrize(
  'tags', [{'RescaleSlope': 'nan'}, {'RescaleIntercept': 'inf'}]
)
def test_rescale_that_is_not_finite_is_a_fault(tmp_path, tags):
  path = _write_small_file(tmp_path / '1.dcm', **tags)
  assert 'rescale' in _fault(path).reason


def test_position_that_is_not_finite_is_a_fault(tmp_path):
  path = _write_small_file(
    tmp_path / '1.dcm', ImagePositionPatient=[0, 0, 'nan']
  )
  header, fault = dicom_header.read_header(path)
  assert header is None and 'z=nan' in fault.reason
