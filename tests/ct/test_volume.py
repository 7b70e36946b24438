"""Tests a series as a volume: where voxels lie, what is read."""

import shutil

import ct_files
import dicom_files
import numpy as np
import pytest

from mtnet_jax.ct import series as ct_series
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.system import errors
from tfds_lidc import errors as lidc_errors
from tfds_lidc.ct import pixels
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.scans import reader


@pytest.fixture(scope='module')
def hu():
  return ct_files.volume(((5, 40, 50), 6.0), shape=(10, 96, 112))


@pytest.fixture(scope='module')
def directory(tmp_path_factory, hu):
  directory = tmp_path_factory.mktemp('series')
  ct_files.write(directory, hu)
  return directory


@pytest.fixture
def series(directory, tmp_path):
  """A copy to break, and its files from the lowest z."""
  copy = shutil.copytree(directory, tmp_path / 'copy')
  return copy, sorted(copy.iterdir(), reverse=True)


def test_positions_are_those_of_the_headers(directory):
  volume = ct_series.find([directory])
  assert volume.shape == (10, 96, 112)
  assert (volume.pixel_spacing_mm, volume.slice_spacing_mm) == (0.7, 1.5)
  # This is column 3, row 2, slice 1; the corner is (-40.5, -120.25, -300).
  assert volume.to_mm((1, 2, 3)) == pytest.approx((-38.4, -118.85, -298.5))
  np.testing.assert_allclose(
    volume.affine @ (3, 2, 1, 1), (-38.4, -118.85, -298.5, 1)
  )
  assert volume.to_voxel((-38.3, -118.8, -298.0)) == (1, 2, 3)
  for voxel in ((0, 0, 0), (9, 95, 111), (4, 17, 60)):
    assert volume.to_voxel(volume.to_mm(voxel)) == voxel
    assert volume.check_voxel(voxel) == voxel


def test_a_prone_patient_has_the_opposite_axes(tmp_path, hu):
  ct_files.write(tmp_path, hu, ImageOrientationPatient=[-1, 0, 0, 0, -1, 0])
  volume = ct_series.find([tmp_path])
  assert volume.to_mm((1, 2, 3)) == pytest.approx((-42.6, -121.65, -298.5))
  assert volume.to_voxel((-42.6, -121.65, -298.5)) == (1, 2, 3)
  low, high = volume.bounds_mm()
  assert low[0] == pytest.approx(-40.5 - 111 * 0.7) and high[0] == -40.5


@pytest.mark.parametrize(
  'position_mm',
  [
    (-41, -120, -290),
    (40, -120, -290),
    (0, -53, -290),
    (0, -100, -285.7),
    (0, -100, -300.8),
  ],
)
def test_the_error_for_points_outside_names_the_bounds(directory, position_mm):
  volume = ct_series.find([directory])
  with pytest.raises(ct_volume.OutsideError) as error:
    volume.to_voxel(position_mm)
  assert 'x -40.5 to 37.2, y -120.2 to -53.8, z -300.0 to -286.5' in str(
    error.value
  )


@pytest.mark.parametrize(
  'voxel', [(-1, 0, 0), (10, 0, 0), (0, 96, 0), (0, 0, -1)]
)
def test_voxels_outside(directory, voxel):
  with pytest.raises(ct_volume.OutsideError, match='10 slices, 96 rows'):
    ct_series.find([directory]).check_voxel(voxel)


def test_a_missing_slice_is_not_replaced_by_a_neighbour(series):
  copy, paths = series
  paths[4].unlink()
  volume = ct_series.find([copy])
  assert volume.lacks_slices and not volume.is_regular
  with pytest.raises(ct_volume.SliceError, match='z=-294 mm is missing'):
    volume.to_voxel((-38, -118, -294))
  assert volume.to_voxel((-38, -118, -292.6))[0] == 4  # the slice at -292.5
  with pytest.raises(ct_volume.SliceError, match='missing'):
    volume.slice_at(-294)
  with pytest.raises(ct_volume.SliceError, match='above z=-295.5'):
    volume.neighbour(3, 1)
  with pytest.raises(ct_volume.SliceError, match='below z=-292.5'):
    volume.neighbour(4, -1)
  assert volume.neighbour(3, -1) == 2 and volume.neighbour(0, -1) is None
  # On the side of the gap, a slice is at most 1.5 times as thick as usual.
  np.testing.assert_allclose(
    volume.thickness_mm([0, 3]), [1.5, (1.5 + 1.5 * 1.5) / 2]
  )


def test_slices_too_far_apart_are_no_neighbours(tmp_path, hu):
  # Such thin slices, 10 mm apart, show emphysema. A point on one is accepted.
  ct_files.write(tmp_path, hu[:3], z_mm=[0, 10, 20])
  volume = ct_series.find([tmp_path])
  assert volume.is_regular and not volume.lacks_slices
  assert volume.to_voxel((-38, -118, 10.2))[0] == 1
  with pytest.raises(ct_volume.SliceError, match='above z=10 mm is missing'):
    volume.neighbour(1, 1)
  assert volume.thickness_mm([1]) == 6


def test_patches_are_read_once_and_as_the_dataset_cuts_them(directory, hu):
  volume = ct_series.find([directory])
  assert volume.num_read == 0
  image = volume.patch((5, 3, 50))
  np.testing.assert_array_equal(image[29:], hu[5, :35, 18:82])
  assert (image[:29] == -1024).all()
  np.testing.assert_array_equal(
    volume.inside(3, 50).any(1), [0] * 29 + [1] * 35
  )
  assert volume.inside(3, 50)[29:].all()
  volume.patch((5, 60, 60))
  assert volume.num_read == 1


def test_broken_and_blank_slices(series):
  copy, paths = series
  blank = np.full((96, 112), 24, np.int16)
  volume = ct_series.find([copy])
  paths[2].write_bytes(paths[2].read_bytes()[:-10])
  dicom_files.write_slice(paths[3], blank, -295.5)
  for k, message, detail in (
    (2, 'unreadable', 'cannot be read'),
    (3, 'blank', '-1000 HU all around'),
  ):
    with pytest.raises(ct_volume.SliceError, match=message) as error:
      volume.patch((k, 40, 50))
    assert str(paths[k]) in error.value.detail and detail in error.value.detail
    assert str(copy) not in str(error.value)


def test_the_lowest_instance_at_a_position_is_used(series, hu):
  copy, paths = series
  ct_files.write(
    copy / 'again',
    hu[:1] + 100,
    InstanceNumber=99,
    SOPInstanceUID='1.2.3',
  )
  volume = ct_series.find([copy])
  assert volume.shape[0] == 10
  image = volume.patch((0, 40, 50))
  np.testing.assert_array_equal(image, hu[0, 8:72, 18:82])
  # If the first is broken, the second is used, and its header is returned.
  volume = ct_series.find([copy])
  paths[0].write_bytes(paths[0].read_bytes()[:-10])
  np.testing.assert_array_equal(volume.patch((0, 40, 50)), image + 100)
  assert volume.headers([0])[0].InstanceNumber == 99


@dicom_files.needs_real_series
def test_real_patches_are_those_of_the_dataset():
  volume = ct_series.find([dicom_files.REAL_DIR])
  assert len(volume) == 140 and volume.series_uid == dicom_files.SERIES_UID
  assert not volume.simulated and volume.is_regular
  policy = selection.POLICIES['all']
  nodules = tuple(dicom_files.nodules())
  series = dicom_files.series_of(dicom_files.REAL_DIR)[dicom_files.SERIES_UID]
  examples, _, _ = reader.read(reader.Job(nodules, policy, series))
  assert len(examples) == 4
  for nodule, example in zip(nodules, examples, strict=True):
    (patch,) = patches.place_nodule(nodule, policy)
    z_mm = annotations.slice_positions(nodule.scan_id)[patch.slice_index]
    image = volume.patch((volume.slice_at(z_mm), patch.row, patch.col))
    np.testing.assert_array_equal(image, example.image)
  assert volume.num_read == len({e.slice_index for e in examples})


def test_an_error_of_the_decoder_is_no_missing_slice(directory, monkeypatch):
  def fail(path):
    raise lidc_errors.InputError('cannot start the process that decodes')

  monkeypatch.setattr(pixels, 'try_read_hu', fail)
  with pytest.raises(errors.InputError, match='^cannot start the process'):
    ct_series.find([directory]).patch((5, 40, 50))
