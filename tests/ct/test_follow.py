"""Tests the search for nodules, on balls whose voxels are known."""

import dataclasses
import types

import ct_files
import numpy as np
import pytest

from mtnet_jax.ct import components
from mtnet_jax.ct import follow
from mtnet_jax.ct import series
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.inference import prediction

BALLS = (((20, 40, 50), 6.0), ((12.3, 60, 80), 5.0), ((30, 10, 100), 4.0))


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('balls')
  ct_files.write(directory, ct_files.volume(*BALLS))
  return directory


def _follow(volume, *starts, model=None):
  model = model or ct_files.Model()
  return follow.follow(
    [s if isinstance(s, follow.Start) else follow.Start(s) for s in starts],
    volume,
    lambda hu: model.predict(hu, ct_files.SPACING_MM),
  )


def _voxels(nodule, shape=ct_files.SHAPE):
  mask = np.zeros(shape, bool)
  for k, pixels in nodule.pixels.items():
    mask[k][tuple(pixels.T)] = True
  return mask


def test_each_ball_is_found_exactly(directory):
  volume = series.find([directory])
  found = _follow(volume, (20, 40, 50), (12, 60, 80), (30, 10, 100))
  for nodule, (centre, radius_mm) in zip(found, BALLS, strict=True):
    np.testing.assert_array_equal(
      _voxels(nodule), ct_files.sphere(ct_files.SHAPE, centre, radius_mm)
    )
    assert nodule.notes == nodule.missing == []
    # The slices beyond its ends were evaluated, too.
    assert sorted(nodule.views) == [
      min(nodule.pixels) - 1,
      *sorted(nodule.pixels),
      max(nodule.pixels) + 1,
    ]
    for k, view in nodule.views.items():
      assert view.voxel[0] == k
      # Only the view that the nodule is judged by keeps its activation map.
      assert (view.cam is None) == (view is not nodule.view)
      pixels = nodule.pixels.get(k, np.empty((0, 2), int))
      np.testing.assert_array_equal(components.to_mask(view, pixels), view.fine)


@pytest.mark.parametrize('start', [(17, 40, 50), (23, 35, 50), (20, 40, 57)])
def test_a_point_off_the_centre_finds_the_same_ball(directory, start):
  volume = series.find([directory])
  (nodule,) = _follow(volume, start)
  np.testing.assert_array_equal(
    _voxels(nodule), ct_files.sphere(ct_files.SHAPE, *BALLS[0])
  )
  # The nodule is judged by the largest slice, in a patch centred on its mask.
  assert nodule.view.voxel == (20, 40, 50)
  assert nodule.views[20] is nodule.view
  area = ct_files.sphere(ct_files.SHAPE, *BALLS[0])[20].sum()
  assert nodule.view.malignancy == area / 4096


def test_a_fixed_start_is_not_moved(directory):
  volume = series.find([directory])
  (nodule,) = _follow(volume, follow.Start((18, 42, 49), fixed=True))
  assert nodule.view.voxel == (18, 42, 49)
  np.testing.assert_array_equal(
    _voxels(nodule), ct_files.sphere(ct_files.SHAPE, *BALLS[0])
  )


def test_a_point_beside_a_ball_notes_the_distance(directory):
  volume = series.find([directory])
  # The ball ends at column 58: (58 - 50) * 0.7 < 6. Column 66 is 8 px off.
  near, far = _follow(volume, (20, 40, 66), (20, 40, 75))
  assert near.notes == ['the mask is 5.6 mm from the point']
  assert _voxels(near).sum() == ct_files.sphere(ct_files.SHAPE, *BALLS[0]).sum()
  assert far.pixels == {} and 'within 10 mm' in far.notes[0]
  (nothing,) = _follow(volume, (5, 40, 50))
  assert nothing.pixels == {} and 'nothing there' in nothing.notes[0]
  assert nothing.view.voxel == (5, 40, 50)


def test_another_nodule_in_the_patch_is_left_out(tmp_path):
  # The second ball is larger, 14 px away, and on the same and further slices.
  first, second = ((20, 40, 40), 3.0), ((21, 40, 54), 6.0)
  ct_files.write(tmp_path, ct_files.volume(first, second))
  (nodule,) = _follow(series.find([tmp_path]), (20, 40, 40))
  np.testing.assert_array_equal(
    _voxels(nodule), ct_files.sphere(ct_files.SHAPE, *first)
  )


def test_a_slanted_nodule_is_followed(tmp_path):
  # It moves 7 px per slice: 80 px in all, more than the side of a patch.
  hu = ct_files.volume()
  truth = np.zeros(hu.shape, bool)
  for n, k in enumerate(range(15, 26)):
    truth[k, 40:46, 15 + 7 * n : 25 + 7 * n] = True
  hu[truth] = ct_files.NODULE_HU
  ct_files.write(tmp_path, hu)
  (nodule,) = _follow(series.find([tmp_path]), (20, 42, 54))
  np.testing.assert_array_equal(_voxels(nodule), truth)


@pytest.mark.parametrize(
  ('share', 'word'), [(0.0, 'nothing'), (1.0, 'everything')]
)
def test_a_last_view_without_a_nodule_is_noted(tmp_path, share, word):
  """The patch centred on the largest mask gets another prediction."""
  hu = ct_files.volume()
  for k, col, side in ((19, 44, 3), (20, 50, 4), (21, 56, 3)):
    hu[k, 40 - side : 40 + side, col - side : col + side] = ct_files.NODULE_HU
  ct_files.write(tmp_path, hu)
  volume = series.find([tmp_path])
  model = ct_files.Model()
  (whole,) = _follow(volume, (19, 40, 44), model=model)
  calls = len(model.batches)
  assert whole.view.voxel == (20, 40, 50) and not whole.notes

  def predict_differently_at_last(hu):
    found = model.predict(hu, ct_files.SPACING_MM)
    if len(model.batches) < calls:
      return found
    mask = np.full_like(found.mask, share)
    return dataclasses.replace(found, mask=mask)

  model.batches.clear()
  (nodule,) = follow.follow(
    [follow.Start((19, 40, 44))], volume, predict_differently_at_last
  )
  np.testing.assert_array_equal(_voxels(nodule), _voxels(whole))
  assert nodule.view.fine.mean() == share
  assert nodule.view.cam is not None
  (note,) = nodule.notes
  assert word in note and 'from the previous patch' in note


def test_only_a_shared_pixel_connects_slices(tmp_path):
  hu = ct_files.volume()
  truth = np.zeros(hu.shape, bool)
  truth[20, 40:44, 50:54] = True
  truth[21, 43:47, 53:57] = True  # shares row 43, column 53
  hu[truth] = ct_files.NODULE_HU
  hu[22, 47:50, 57:60] = ct_files.NODULE_HU  # touches a corner only
  hu[19, 44:47, 50:54] = ct_files.NODULE_HU
  ct_files.write(tmp_path, hu)
  (nodule,) = _follow(series.find([tmp_path]), (20, 41, 51))
  np.testing.assert_array_equal(_voxels(nodule), truth)


def test_a_mask_outside_of_the_slice_does_not_count(tmp_path):
  # This model also marks the -1024 HU that patches are padded with.
  ball = ((20, 3, 50), 4.0)
  ct_files.write(tmp_path, ct_files.volume(ball))

  class Outside(ct_files.Model):
    def predict(self, hu, pixel_spacing_mm):
      found = super().predict(hu, pixel_spacing_mm)
      return dataclasses.replace(found, mask=found.mask | (hu == -1024))

  (nodule,) = _follow(series.find([tmp_path]), (20, 3, 50), model=Outside())
  np.testing.assert_array_equal(
    _voxels(nodule), ct_files.sphere(ct_files.SHAPE, *ball)
  )


def test_a_mask_of_the_whole_patch_is_not_followed(directory):
  volume = series.find([directory])
  everything = types.SimpleNamespace(
    predict=lambda hu, _: prediction.Prediction(
      mask=np.ones_like(hu, bool),
      probability=np.ones(hu.shape),
      coarse_mask=np.ones_like(hu, bool),
      cam=np.zeros(hu.shape),
      malignancy=np.full(len(hu), 0.5),
    )
  )
  (nodule,) = _follow(volume, (20, 48, 56), model=everything)
  assert list(nodule.pixels) == [20] and len(nodule.pixels[20]) == 4096
  assert nodule.notes == [
    "on the point's slice the mask fills its patch and is no outline: sizes"
    ' are not measured'
  ]
  assert nodule.leaks == {20}


@pytest.mark.parametrize('start', [(20, 40, 50), (21, 40, 50)])
def test_a_slice_that_leaks_to_the_edge_is_no_outline(tmp_path, start):
  hu = ct_files.volume(BALLS[0])
  # It reaches farther than any patch that contains the ball.
  hu[21, 38:43, 50:] = ct_files.NODULE_HU
  ct_files.write(tmp_path, hu)
  (nodule,) = _follow(series.find([tmp_path]), start)
  assert nodule.leaks == {21}
  # The leak is kept, and the nodule ends where the ball ends.
  ball = ct_files.sphere(ct_files.SHAPE, *BALLS[0])
  found = _voxels(nodule)
  assert found[21].sum() > ball[21].sum() + 100
  found[21] = ball[21]
  np.testing.assert_array_equal(found, ball)
  # The leak is the largest mask, but the nodule is not judged by it.
  assert nodule.view.voxel == (20, 40, 50)
  assert not nodule.cut_off
  (note,) = nodule.notes
  assert ("on the point's slice" in note) == (start[0] == 21)
  assert ('on 1 of 7 slices' in note) == (start[0] == 20)


def test_a_rod_is_cut_off_at_the_limit(tmp_path):
  shape = (60, 96, 112)
  hu = ct_files.volume(shape=shape)
  hu[:, 40:44, 50:54] = ct_files.NODULE_HU
  ct_files.write(tmp_path, hu)
  (nodule,) = _follow(series.find([tmp_path]), (30, 41, 51))
  # The limit of 30 mm is 20 slices of 1.5 mm.
  assert sorted(nodule.pixels) == list(range(10, 51))
  assert nodule.cut_off and nodule.runs_away and not nodule.leaks
  assert nodule.notes == [
    'the mask is cut off above: it reaches farther than 30 mm',
    'the mask is cut off below: it reaches farther than 30 mm',
  ]
  assert not nodule.missing


def test_a_missing_slice_ends_the_search_and_is_reported(tmp_path):
  paths = ct_files.write(tmp_path, ct_files.volume(BALLS[0]))
  paths[22].unlink()
  paths[18].write_bytes(paths[18].read_bytes()[:-50])
  volume = series.find([tmp_path])
  k = volume.slice_at(ct_files.ORIGIN_MM[2] + 20 * ct_files.SLICE_MM)
  (nodule,) = _follow(volume, (k, 40, 50))
  z_mm = [float(volume.z_mm[k]) for k in sorted(nodule.pixels)]
  assert z_mm == [-271.5, -270.0, -268.5]
  up, down = nodule.missing
  assert str(up) == 'the slice above z=-268.5 mm is missing'
  assert str(down) == 'the slice below z=-271.5 mm is missing'
  # The file's name is in the detail, for the terminal only.
  assert str(paths[18]) in down.detail and 'perhaps' not in down.detail
  assert str(paths[18]) not in str(down) and up.detail == ''


def test_a_start_that_cannot_be_read_does_not_stop_others(directory, tmp_path):
  paths = ct_files.write(tmp_path, ct_files.volume(*BALLS))
  volume = series.find([tmp_path])
  # The file is damaged after the series was indexed.
  paths[20].write_bytes(paths[20].read_bytes()[:-50])
  failed, nodule = _follow(volume, (20, 40, 50), (12, 60, 80))
  assert isinstance(failed, ct_volume.SliceError)
  assert 'z=-270 mm cannot be used' in str(failed)
  assert str(paths[20]) in failed.detail
  assert len(nodule.pixels) == 7


def test_a_hundred_nodules_read_the_series_once(tmp_path):
  # There are 10 x 10 balls, alternately at two heights.
  shape = (16, 400, 400)
  centres = [
    (4 + 7 * ((r + c) % 2), 20 + 38 * r, 20 + 38 * c)
    for r in range(10)
    for c in range(10)
  ]
  ball = np.argwhere(ct_files.sphere((9, 13, 13), (4, 6, 6), 4.0)) - (4, 6, 6)
  hu = ct_files.volume(shape=shape)
  for centre in centres:
    hu[tuple((ball + centre).T)] = ct_files.NODULE_HU
  ct_files.write(tmp_path, hu)
  volume, model = series.find([tmp_path]), ct_files.Model()
  assert volume.num_read == 0
  found = _follow(volume, *centres, model=model)
  for nodule, centre in zip(found, centres, strict=True):
    voxels = {(k, *at) for k, p in nodule.pixels.items() for at in p.tolist()}
    assert voxels == set(map(tuple, (ball + centre).tolist()))
  # Masks are on slices 2 to 6 and 9 to 13; their neighbours are read, too.
  assert volume.num_read == 14
  # Each nodule needs 7 patches: 5 slices and one beyond each end.
  assert set(model.batches) <= {1, 16}
  assert 700 <= sum(model.batches) <= 700 + 7 * 16
  assert len(model.batches) <= 7 * 7 + 7


def test_one_nodule_predicts_no_needless_patch(directory):
  model = ct_files.Model()
  _follow(series.find([directory]), (20, 40, 50), model=model)
  # There are seven slices, and one beyond each end.
  assert model.batches == [1] * 9
  # A start that is off centre by more than a pixel is predicted twice.
  model.batches.clear()
  _follow(series.find([directory]), (20, 42, 50), model=model)
  assert model.batches == [1] * 10


def test_progress_is_reported_for_every_nodule(directory):
  calls = []
  follow.follow(
    [follow.Start((20, 40, 50)), follow.Start((5, 40, 50))],
    series.find([directory]),
    lambda hu: ct_files.Model().predict(hu, ct_files.SPACING_MM),
    on_done=lambda: calls.append(1),
  )
  assert len(calls) == 2
