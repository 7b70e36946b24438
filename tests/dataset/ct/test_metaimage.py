"""Volumes of LUNA16 give the same records as the DICOM files."""

import build_job
import dicom_files
import numpy as np
import pytest

from tfds_lidc import build
from tfds_lidc import errors
from tfds_lidc.ct import metaimage
from tfds_lidc.ct import pixels
from tfds_lidc.nodules import annotations

pytestmark = pytest.mark.extra
itk = pytest.importorskip('SimpleITK', reason='needs the extra volumes')

_SIDE = 512


def _volume():
  """(HU, z in mm) of all slices of LIDC-IDRI-0003, denser inside nodules."""
  z_mm = annotations.slice_positions(dicom_files.SCAN_ID)
  rng = np.random.default_rng(0)
  hu = rng.integers(-900, -700, (len(z_mm), _SIDE, _SIDE)).astype(np.int16)
  for nodule in dicom_files.nodules():
    readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
    at = np.argwhere(readers.masks.any(0)) + readers.origin
    hu[tuple(at.T)] += 700
  return hu, np.asarray(z_mm, float)


@pytest.fixture(scope='module')
def ct(tmp_path_factory):
  """(HU, z in mm, directory of their DICOM files)."""
  hu, z_mm = _volume()
  directory = tmp_path_factory.mktemp('dicom')
  for k, z in enumerate(z_mm):
    dicom_files.write_slice(
      directory / f'{k:03}.dcm', hu[k] + 1024, float(z), instance_number=k + 1
    )
  return hu, z_mm, directory


def _write(folder, hu, z_mm, *, flips='', compressed=False, uid=None):
  """Writes a volume like LUNA16's, whose axes are reversed along `flips`."""
  axes = [-1 if axis in flips else 1 for axis in 'xyz']
  image = itk.GetImageFromArray(
    np.ascontiguousarray(hu[:: axes[2], :: axes[1], :: axes[0]])
  )
  spacing = (0.82, 0.82, float(np.median(np.diff(z_mm))))
  low = np.array([-200.0, -180.0, z_mm[0]])
  last = (np.array(hu.shape[::-1]) - 1) * spacing
  image.SetSpacing(spacing)
  image.SetOrigin(np.where(np.array(axes) < 0, low + last, low).tolist())
  image.SetDirection(np.diag(axes).astype(float).ravel().tolist())
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'{uid or dicom_files.SERIES_UID}.mhd'
  itk.WriteImage(image, str(path), useCompression=compressed)
  return path


def _assert_same(ours, theirs):
  ours, theirs = build_job.records(ours), build_job.records(theirs)
  assert ours.keys() == theirs.keys() and len(ours) == 4
  for key, record in ours.items():
    for name, value in record.items():
      np.testing.assert_array_equal(value, theirs[key][name], err_msg=name)


@pytest.fixture(scope='module')
def of_dicom(ct, tmp_path_factory):
  *_, directory = ct
  return build.build(
    'all', lidc_dir=directory, data_dir=tmp_path_factory.mktemp('data')
  )


@pytest.mark.parametrize('flips', ('', 'z', 'x', 'y', 'xy', 'xyz'))
def test_records_are_those_of_dicom(tmp_path, ct, of_dicom, flips):
  """The header has the directions of the axes."""
  hu, z_mm, _ = ct
  _write(tmp_path / 'luna' / 'subset3', hu, z_mm, flips=flips)
  ours = build.build(
    'all', luna_dir=tmp_path / 'luna', data_dir=tmp_path / 'data'
  )
  _assert_same(ours, of_dicom)


def test_slices_of_a_prone_patient_are_turned_back(tmp_path, ct, of_dicom):
  """Axes of the header are reversed, but pixels are as in the DICOM files."""
  hu, z_mm, _ = ct
  path = _write(tmp_path / 'luna', hu[:, ::-1, ::-1], z_mm, flips='xy')
  np.testing.assert_array_equal(itk.GetArrayFromImage(itk.ReadImage(path)), hu)
  ours = build.build(
    'all', luna_dir=tmp_path / 'luna', data_dir=tmp_path / 'data'
  )
  _assert_same(ours, of_dicom)


def test_compressed_volume_is_read_once(tmp_path, ct, of_dicom, monkeypatch):
  hu, z_mm, _ = ct
  _write(tmp_path / 'luna', hu, z_mm, compressed=True)
  metaimage._whole.cache_clear()
  ours = build.build(
    'all', luna_dir=tmp_path / 'luna', data_dir=tmp_path / 'data'
  )
  _assert_same(ours, of_dicom)
  assert metaimage._whole.cache_info().misses == 1


def test_commands_build_and_check_accept_volumes(tmp_path, ct):
  hu, z_mm, _ = ct
  _write(tmp_path / 'luna', hu, z_mm)
  flags = (f'--luna_dir={tmp_path}/luna', f'--data_dir={tmp_path}/data')
  returncode, stdout, stderr = build_job.run('--config=all', *flags)
  assert returncode == 0, stderr
  assert '4 records' in stdout and 'scans: 1 used' in stdout
  returncode, stdout, stderr = build_job.run(*flags, command='check')
  assert returncode == 0, stderr
  assert 'LIDC-IDRI' in stdout


def test_slice_is_read_by_its_name(tmp_path, ct):
  hu, z_mm, _ = ct
  path = _write(tmp_path, hu, z_mm, flips='z')
  found, fault = pixels.try_read_hu(metaimage.slice_name(str(path), 2))
  assert fault is None and found.dtype == np.int16
  np.testing.assert_array_equal(found, hu[2])
  found, _ = pixels.try_read_hu(metaimage.slice_name(str(path), 2, 'xy'))
  np.testing.assert_array_equal(found, hu[2, ::-1, ::-1])
  found, fault = pixels.try_read_hu(metaimage.slice_name(str(path), 999))
  assert found is None and 'no slice 999' in fault.reason


@pytest.mark.parametrize(
  ('text', 'message'),
  (
    (b'', 'damaged header'),
    (b'ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\n', 'damaged header'),
    (
      b'ObjectType = Image\nNDims = 3\nDimSize = 9 9 9'
      b'\nElementType = MET_SHORT\nElementDataFile = y.raw\n',
      'lacks the file of its pixels',
    ),
    (
      b'ObjectType = Image\nNDims = 2\nDimSize = 9 9\nElementType = MET_SHORT'
      b'\nElementDataFile = x.raw\n',
      'not a volume',
    ),
    (
      b'ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\nElementSpacing = 0 1 1'
      b'\nElementType = MET_SHORT\nElementDataFile = x.raw\n',
      'size or position',
    ),
    (
      b'ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\n'
      b'TransformMatrix = 0 1 0 1 0 0 0 0 1\nElementSpacing = 1 1 1'
      b'\nElementType = MET_SHORT\nElementDataFile = x.raw\n',
      'not a stack of axial',
    ),
  ),
)
def test_unusable_volume_is_a_fault_and_others_are_read(
  tmp_path, ct, text, message
):
  hu, z_mm, _ = ct
  (tmp_path / f'{dicom_files.SERIES_UID}9.mhd').write_bytes(text)
  (tmp_path / 'x.raw').touch()
  _write(tmp_path, hu[:3], z_mm[:3])
  index = metaimage.load(tmp_path)
  assert set(index.series) == {dicom_files.SERIES_UID}
  (fault,) = index.faults
  assert message in fault.reason


def test_missing_or_truncated_raw_file_is_a_fault(tmp_path, ct):
  hu, z_mm, _ = ct
  path = _write(tmp_path, hu[:3], z_mm[:3])
  name = metaimage.slice_name(str(path), 2)
  raw = path.with_suffix('.raw')
  raw.write_bytes(raw.read_bytes()[:-1000])
  found, fault = pixels.try_read_hu(name)
  assert found is None and fault.kind == 'unreadable'
  raw.unlink()
  assert pixels.try_read_hu(name)[1].kind == 'unreadable'


def test_volume_not_named_after_a_series_is_refused(tmp_path, ct):
  hu, z_mm, _ = ct
  _write(tmp_path, hu[:2], z_mm[:2], uid='lung_mask')
  with pytest.raises(errors.InputError, match='named after a series'):
    metaimage.load(tmp_path)


@pytest.mark.parametrize('flags', ({}, {'lidc_dir': '.', 'luna_dir': '.'}))
def test_build_needs_exactly_one_source(tmp_path, flags):
  with pytest.raises(errors.InputError, match='--luna_dir'):
    build.build('all', data_dir=tmp_path, **flags)


@dicom_files.needs_real_series
def test_volume_of_the_real_series_gives_the_same_records(tmp_path):
  """SimpleITK writes it from the DICOM files, as it wrote LUNA16."""
  (folder,) = {p.parent for p in dicom_files.REAL_DIR.rglob('*.dcm')}
  reader = itk.ImageSeriesReader()
  reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
  (tmp_path / 'luna').mkdir()
  path = tmp_path / 'luna' / f'{dicom_files.SERIES_UID}.mhd'
  itk.WriteImage(reader.Execute(), str(path))
  ours = build.build(
    'all', luna_dir=tmp_path / 'luna', data_dir=tmp_path / 'ours'
  )
  theirs = build.build(
    'all', lidc_dir=dicom_files.REAL_DIR, data_dir=tmp_path / 'theirs'
  )
  _assert_same(ours, theirs)


@pytest.mark.parametrize(
  'numbers',
  (
    'BinaryData = False',
    'BinaryData = Brue',
    'BinaryData: F',
  ),
)
def test_volume_as_text_is_read_as_a_whole(tmp_path, numbers):
  """ITK would write out of bounds if it read a single slice."""
  hu = np.arange(-60, 60, dtype=np.int16).reshape(5, 4, 6)
  path = tmp_path / 'ct.mhd'
  path.write_text(
    f'ObjectType = Image\nNDims = 3\n{numbers}\nDimSize = 6 4 5\n'
    'ElementSpacing = 0.7 0.7 2\nElementType = MET_SHORT\n'
    'ElementDataFile = ct.raw\n'
  )
  (tmp_path / 'ct.raw').write_text(f'{" ".join(map(str, hu.ravel()))}\n')
  grid, fault = metaimage.read_grid(str(path))
  assert fault is None and grid.in_one_piece
  for k, plane in enumerate(hu):
    found, fault = metaimage.try_read_hu(metaimage.slice_name(str(path), k))
    assert fault is None
    np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize('names', ('LIST\n{}', 'ct%d.raw 0 4 1'))
def test_volume_with_one_file_per_slice(tmp_path, names):
  hu = np.arange(-60, 60, dtype='<i2').reshape(5, 4, 6)
  files = [f'ct{k}.raw' for k in range(5)]
  for name, plane in zip(files, hu, strict=True):
    (tmp_path / name).write_bytes(plane.tobytes())
  path = tmp_path / 'ct.mhd'
  path.write_text(
    'ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 6 4 5\n'
    'ElementSpacing = 0.7 0.7 2\nElementType = MET_SHORT\n'
    f'ElementDataFile = {names.format(chr(10).join(files))}\n'
  )
  assert metaimage.read_grid(str(path))[0].in_one_piece
  for k, plane in enumerate(hu):
    found, fault = metaimage.try_read_hu(metaimage.slice_name(str(path), k))
    assert fault is None
    np.testing.assert_array_equal(found, plane)


def test_uncompressed_volume_is_read_slice_by_slice(tmp_path, ct):
  hu, z_mm, _ = ct
  plain, compressed = (
    metaimage.read_grid(
      str(_write(tmp_path / str(zipped), hu, z_mm, compressed=zipped))
    )
    for zipped in (False, True)
  )
  assert not plain[0].in_one_piece and compressed[0].in_one_piece


@pytest.mark.parametrize(
  ('old', 'new'),
  (
    ('NDims = 3', 'NDims = 333'),
    ('NDims = 3', 'NDims = 3\nNDims = 333'),
    ('NDims', 'Dims'),
    ('BinaryData = True', 'BinaryD[ta = True'),
    ('BinaryData = True', 'BinaryData = True\x01'),
    ('ElementDataFile', 'ElementData'),
    ('= ct.raw', '='),
  ),
)
def test_damaged_header_is_not_passed_to_itk(tmp_path, monkeypatch, old, new):
  hu = np.zeros((5, 4, 6), np.int16)
  path = tmp_path / 'ct.mhd'
  itk.WriteImage(itk.GetImageFromArray(hu), str(path))
  assert metaimage.read_grid(str(path))[1] is None
  header = path.read_text()
  assert old in header
  damaged = tmp_path / 'damaged.mhd'
  damaged.write_text(header.replace(old, new))
  monkeypatch.setattr(metaimage, '_reader', None)
  grid, fault = metaimage.read_grid(str(damaged))
  assert grid is None and fault.reason == 'has a damaged header'


def test_header_may_have_more_fields_than_needed(tmp_path):
  path = tmp_path / 'ct.mhd'
  itk.WriteImage(
    itk.GetImageFromArray(np.zeros((5, 4, 6), np.int16)), str(path)
  )
  text = path.read_text().replace(
    'NDims', 'Comment = Größe, 3 % of it: = all\nName =\n\nNDims'
  )
  path.write_bytes(text.replace('\n', '\r\n').encode())
  grid, fault = metaimage.read_grid(str(path))
  assert fault is None and grid.size == (6, 4, 5)
