"""Tests that a CT in one file equals its DICOM series in any orientation."""

import itertools

import ct_files
import numpy as np
import pytest

from mtnet_jax.ct import image_probe
from mtnet_jax.ct import image_volume
from mtnet_jax.ct import series
from mtnet_jax.ct import volume
from mtnet_jax.system import errors

pytestmark = pytest.mark.extra
itk = pytest.importorskip('SimpleITK', reason='needs the extra volumes')

_BALL = ((20, 40, 50), 6.0)
# Directions of a file's axes, some in another order.
_CODES = ('LPS', 'RAS', 'RPS', 'LAI', 'PIR', 'SLP')


@pytest.fixture(scope='module')
def hu():
  return ct_files.volume(_BALL)


@pytest.fixture(scope='module')
def dicom(hu, tmp_path_factory):
  directory = tmp_path_factory.mktemp('dicom')
  ct_files.write(directory, hu)
  return series.find([directory])


def _write(path, hu, code='LPS', **changes):
  """Writes the CT of `ct_files` as a file with the axes of a code."""
  image = itk.GetImageFromArray(hu)
  spacing = changes.get('spacing', (ct_files.SPACING_MM,) * 2)
  image.SetSpacing((*spacing, ct_files.SLICE_MM))
  image.SetOrigin(ct_files.ORIGIN_MM)
  if 'direction' in changes:
    image.SetDirection(changes['direction'])
  itk.WriteImage(itk.DICOMOrient(image, code), str(path))
  return path


@pytest.mark.parametrize(
  ('code', 'ending'),
  [
    *itertools.product(_CODES, ('.nii.gz',)),
    ('LPS', '.mhd'),
    ('RAI', '.mha'),
    ('RAS', '.nrrd'),
    ('LPS', '.nii'),
  ],
)
def test_file_equals_the_dicom_series(tmp_path, hu, dicom, code, ending):
  path = _write(tmp_path / f'ct{ending}', hu, code)
  found = image_volume.ImageVolume(path)
  assert found.shape == dicom.shape
  np.testing.assert_allclose(found.z_mm, dicom.z_mm, atol=1e-3)
  np.testing.assert_allclose(found.affine, dicom.affine, atol=1e-3)
  for voxel in ((20, 40, 50), (0, 5, 100)):
    np.testing.assert_array_equal(found.patch(voxel), dicom.patch(voxel))
    position_mm = dicom.to_mm(voxel)
    assert found.to_voxel(position_mm) == voxel
    np.testing.assert_allclose(found.to_mm(voxel), position_mm, atol=1e-3)
  assert found.notes_on_hu() == []


@pytest.mark.parametrize('code', _CODES)
def test_masks_are_written_on_the_grid_of_the_file(tmp_path, hu, code):
  path = _write(tmp_path / 'ct.nii.gz', hu, code)
  mask = ct_files.sphere(ct_files.SHAPE, *_BALL)
  pixels = {
    int(k): np.argwhere(mask[k]) for k in np.flatnonzero(mask.any((1, 2)))
  }
  image_volume.ImageVolume(path).write_labels(
    tmp_path / 'out.nii.gz', {'a': pixels}
  )
  ct, labels = (
    itk.ReadImage(str(tmp_path / name)) for name in ('ct.nii.gz', 'out.nii.gz')
  )
  assert labels.GetSize() == ct.GetSize()
  for name in ('GetOrigin', 'GetSpacing', 'GetDirection'):
    np.testing.assert_allclose(
      getattr(labels, name)(), getattr(ct, name)(), atol=1e-4
    )
  # The nodule is exactly where the file is bright.
  np.testing.assert_array_equal(
    itk.GetArrayFromImage(labels) == 1,
    itk.GetArrayFromImage(ct) == ct_files.NODULE_HU,
  )


def test_name_of_a_luna16_file_gives_the_series(tmp_path, hu):
  uid = ct_files.SERIES_UID
  assert (
    image_volume.ImageVolume(_write(tmp_path / f'{uid}.mhd', hu)).series_uid
    == uid
  )
  assert not image_volume.ImageVolume(
    _write(tmp_path / 'ct.mhd', hu)
  ).series_uid


def test_a_simulated_file_says_so(tmp_path, hu):
  """It says so in its name, or in any text of its header."""
  path = _write(tmp_path / 'ct_SIMULATED.nii.gz', hu)
  assert image_volume.ImageVolume(path).simulated
  image = itk.GetImageFromArray(hu)
  image.SetMetaData('comment', 'SIMULATED chest')
  itk.WriteImage(image, str(tmp_path / 'ct.nrrd'))
  assert image_volume.ImageVolume(tmp_path / 'ct.nrrd').simulated


@pytest.mark.parametrize('dtype', (np.float32, np.int32, np.float64))
def test_values_are_rounded_hu(tmp_path, hu, dtype):
  values = hu.astype(dtype)
  if dtype != np.int32:
    values += 0.25
  found = image_volume.ImageVolume(_write(tmp_path / 'ct.nii.gz', values))
  patch = found.patch((20, 40, 50))
  assert patch.dtype == np.int16
  np.testing.assert_array_equal(patch, hu[20, 8:72, 18:82])


@pytest.mark.parametrize(
  ('make', 'message'),
  (
    (lambda hu: hu[0], '2 dimensions'),
    (lambda hu: np.stack([hu, hu]), '4 dimensions'),
  ),
)
def test_other_dimensions_are_refused(tmp_path, hu, make, message):
  path = tmp_path / 'ct.nii.gz'
  itk.WriteImage(itk.GetImageFromArray(make(hu), isVector=False), str(path))
  with pytest.raises(errors.InputError, match=message):
    image_volume.ImageVolume(path)


def test_colours_are_refused(tmp_path, hu):
  image = itk.GetImageFromArray(np.stack([hu] * 3, -1), isVector=True)
  itk.WriteImage(image, str(tmp_path / 'ct.mha'))
  with pytest.raises(errors.InputError, match='3 values per voxel'):
    image_volume.ImageVolume(tmp_path / 'ct.mha')


def test_other_geometry_is_refused(tmp_path, hu):
  path = _write(tmp_path / 'a.nii.gz', hu, spacing=(0.7, 0.9))
  with pytest.raises(errors.InputError, match='0.9 x 0.7 mm'):
    image_volume.ImageVolume(path)
  c, s = np.cos(0.1), np.sin(0.1)
  path = _write(
    tmp_path / 'b.nii.gz', hu, direction=(1, 0, 0, 0, c, -s, 0, s, c)
  )
  with pytest.raises(errors.InputError, match='not axial'):
    image_volume.ImageVolume(path)


@pytest.mark.parametrize('name', ('ct.nii.gz', 'ct.mhd', 'ct.nrrd'))
def test_a_damaged_file_gives_one_line(tmp_path, name):
  path = tmp_path / name
  path.write_bytes(b'ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\n')
  with pytest.raises(errors.InputError) as error:
    image_volume.ImageVolume(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'message'),
  (('none.nii', 'does not exist'), ('.', 'is a folder'), ('x.png', 'none of')),
)
def test_other_paths_are_refused(tmp_path, name, message):
  (tmp_path / 'x.png').write_bytes(b'x')
  with pytest.raises(errors.InputError, match=message):
    image_volume.ImageVolume(tmp_path / name)


def test_a_slice_with_nan_is_refused(tmp_path, hu):
  values = hu.astype(np.float32)
  values[20, 0, 0] = np.nan
  found = image_volume.ImageVolume(_write(tmp_path / 'ct.mha', values))
  with pytest.raises(volume.SliceError, match='cannot be used'):
    found.patch((20, 40, 50))
  found.patch((21, 40, 50))


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    (b'NDims = 3', b'NDims = 333'),
    (b'ElementDataFile = ct.raw', b'ElementDataFile = \xfeNw\x02\n5Ag\x9b'),
  ],
)
def test_a_file_that_crashes_itk_is_refused(tmp_path, hu, old, new):
  path = _write(tmp_path / 'ct.mhd', hu)
  header = path.read_bytes()
  assert old in header
  path.write_bytes(header.replace(old, new))
  with pytest.raises(errors.InputError, match='ct.mhd'):
    image_volume.ImageVolume(path)


def test_a_crash_of_the_probe_is_reported(tmp_path, hu, monkeypatch):
  path = _write(tmp_path / 'ct.nii', hu)
  assert image_probe.survives(path, hu.size)
  script = tmp_path / 'crash.py'
  script.write_text('import os\nos.abort()\n')
  monkeypatch.setattr(image_probe, '__file__', str(script))
  with pytest.raises(errors.InputError, match='SimpleITK crashes on it'):
    image_volume.ImageVolume(path)
