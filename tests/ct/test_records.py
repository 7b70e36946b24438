"""Tests records of nodules whose sizes are counted by hand."""

import json

import ct_files
import numpy as np
import pytest

from mtnet_jax.ct import follow
from mtnet_jax.ct import places
from mtnet_jax.ct import records
from mtnet_jax.ct import series
from mtnet_jax.ct import views
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.storage import seen as seen_lib


@pytest.fixture(scope='module')
def volume(tmp_path_factory):
  directory = tmp_path_factory.mktemp('series')
  ct_files.write(directory, ct_files.volume(shape=(10, 96, 112)))
  return series.find([directory])


def _view(voxel=(4, 10, 20)):
  fine = np.zeros((64, 64), bool)
  fine[30:34, 30:34] = True
  coarse = np.roll(fine, 2, axis=1)
  zeros = np.zeros((64, 64))
  return views.View(voxel, zeros.astype(np.int16), fine, coarse, zeros, 0.25)


def _make(volume, nodule, *, seen=None, **kwargs):
  place = places.Place('n', (4, 10, 20), volume.to_mm((4, 10, 20)), **kwargs)
  record = records.make(
    place, nodule, volume, trained_on_simulated=False, seen=seen
  )
  return json.loads(json.dumps(record, allow_nan=False)), place


def test_sizes_in_millimetres(volume):
  # A square of 2 x 2 pixels is below a row of 3. Pixels are 0.7 mm wide, and
  # slices 1.5 mm thick.
  nodule = follow.Nodule(
    _view(),
    {
      4: np.array([[9, 20], [9, 21], [10, 20], [10, 21]]),
      5: np.array([[10, 20], [10, 21], [10, 22]]),
    },
  )
  record, _ = _make(volume, nodule)
  assert record['mask'] == {
    # Area and diameter are those of the point's slice, not of the wider one.
    'area_mm2': pytest.approx(4 * 0.49),
    # It is sqrt(4 + 1) pixels from edge midpoint to edge midpoint.
    'diameter_mm': pytest.approx(5**0.5 * 0.7, abs=1e-4),
    'volume_mm3': pytest.approx(7 * 0.49 * 1.5),
    'volume_is_lower_bound': False,
    'slices': 2,
    'unmeasured_slices': [],
    'lowest_slice': 4,
    'highest_slice': 5,
  }
  assert record['status'] == 'ok' and record['malignancy_probability'] == 0.25
  assert record['voxel'] == {'slice': 4, 'row': 10, 'col': 20}
  # The corner of the volume is (-40.5, -120.25, -300).
  assert record['position_mm'] == {'x': -26.5, 'y': -113.25, 'z': -294.0}
  assert record['simulated_ct'] is True
  assert record['trained_on_simulated'] is False
  assert not {'readers', 'coarse_dice', 'fine_dice'} & record.keys()


@pytest.mark.parametrize(
  ('change', 'lower_bound'),
  [
    ({}, False),
    ({'cut_off': True}, True),
    ({'leaks': {5}}, True),
    ({'missing': [ct_volume.SliceError('slice 6 is missing')]}, True),
  ],
)
def test_a_volume_without_all_slices_is_a_lower_bound(
  volume, change, lower_bound
):
  pixels = {4: np.array([[9, 20], [9, 21]]), 5: np.array([[9, 20]])}
  record, place = _make(volume, follow.Nodule(_view(), pixels, **change))
  counted = 2 if 'leaks' in change else 3
  mask = record['mask']
  assert mask['volume_mm3'] == pytest.approx(counted * 0.49 * 1.5)
  assert mask['volume_is_lower_bound'] is lower_bound
  assert mask['slices'] == 2
  assert (mask['lowest_slice'], mask['highest_slice']) == (4, 5)
  assert mask['unmeasured_slices'] == sorted(change.get('leaks', ()))
  text = '>' * lower_bound + f'{counted * 0.49 * 1.5:.0f}'
  assert f'  {text} mm3  ' in records.table([record])
  row = records.picture_row(place, follow.Nodule(_view()), record)
  assert row.texts[2] == f'1.4 mm, {text} mm³'


def test_a_mask_that_runs_away_has_no_volume(volume):
  nodule = follow.Nodule(
    _view(), {4: np.array([[9, 20]])}, cut_off=True, runs_away=True
  )
  record, place = _make(volume, nodule)
  mask = record['mask']
  assert mask['diameter_mm'] == 0.7 and mask['area_mm2'] == 0.49
  assert mask['volume_mm3'] is mask['volume_is_lower_bound'] is None
  line = records.table([record]).splitlines()[1]
  assert line.split()[1:4] == ['0.7', 'mm', '-']
  assert records.picture_row(place, nodule, record).texts[2] == '0.7 mm'


def test_a_leak_on_the_points_slice_has_no_sizes(volume):
  pixels = {4: np.array([[9, 20]]), 5: np.array([[9, 20]])}
  nodule = follow.Nodule(_view((5, 10, 20)), pixels, leaks={4})
  record, place = _make(volume, nodule)
  mask = record['mask']
  sizes = ('diameter_mm', 'area_mm2', 'volume_mm3', 'volume_is_lower_bound')
  assert [mask[name] for name in sizes] == [None] * 4
  assert mask['slices'] == 2 and mask['unmeasured_slices'] == [4]
  assert record['status'] == 'ok'
  assert records.table([record]).splitlines()[1].split()[1:3] == ['-', '-']
  row = records.picture_row(place, nodule, record)
  assert row.texts[2] == 'not measured'


def test_a_picture_of_another_slice_names_the_measured_slice(volume):
  pixels = {4: np.array([[9, 20]]), 5: np.array([[9, 20], [9, 21]])}
  nodule = follow.Nodule(_view((5, 10, 20)), pixels)
  record, place = _make(volume, nodule)
  row = records.picture_row(place, nodule, record)
  assert row.texts[2] == 'slice 4: 0.7 mm, 2 mm³'


def test_dice_with_the_readers_mask(volume):
  truth = _view().fine
  nodule = follow.Nodule(_view(), {4: np.array([[9, 20]])})
  readers = {'diameter_mm': 4.5, 'malignancy_rating_mean': 3.5}
  record, place = _make(volume, nodule, truth=truth, readers=readers)
  assert (record['fine_dice'], record['coarse_dice']) == (1.0, 0.5)
  assert record['readers'] == readers
  row = records.picture_row(place, nodule, record)
  assert row.truth is truth and len(row.texts) == 5
  assert row.texts[2:4] == ('Dice 0.500', 'Dice 1.000')
  assert 'fine' in records.table([record])


_TRAIN, _VALIDATION = ('n', 'p', 'train'), ('n', 'p', 'validation')


@pytest.mark.parametrize(
  ('rows', 'note'),
  [
    ([], None),
    ([('other', 'q', 'train')], None),
    ([_TRAIN], 'the model was trained on this nodule'),
    ([_VALIDATION], 'the model was selected with this nodule'),
    ([_TRAIN, _VALIDATION], 'the model was trained on this nodule'),
    (
      [('other', 'p', 'train')],
      'the model was trained on other nodules of its patient',
    ),
    (
      [('other', 'p', 'train'), _VALIDATION],
      'the model was trained on other nodules of its patient',
    ),
    (
      [('other', 'p', 'validation')],
      'the model was selected with other nodules of its patient',
    ),
  ],
)
def test_a_patient_that_the_model_has_seen_is_noted(volume, rows, note):
  """The nodule is n of patient p, in any split of the dataset."""
  expected = [note] if note else []
  for split in ('train', 'test'):
    record, _ = _make(
      volume,
      follow.Nodule(_view()),
      seen=seen_lib.Seen(frozenset(rows)),
      truth=_view().fine,
      readers={'split': split},
      patient_id='p',
    )
    assert record['notes'] == expected
  # The folds do not tell which of a patient's nodules it was.
  if note:
    record, _ = _make(
      volume,
      follow.Nodule(_view()),
      seen=seen_lib.Seen(frozenset(rows), by_fold=True),
      patient_id='p',
    )
    start, _, _ = note.partition(' this')
    start, _, _ = start.partition(' other')
    assert record['notes'] == [
      f'{start} its patient (according to the folds, since the model has no'
      ' list)'
    ]


def test_an_unknown_patient_gets_no_note(volume):
  seen = seen_lib.Seen(frozenset({('n', '', 'train')}))
  for known in (seen, None):
    record, _ = _make(volume, follow.Nodule(_view()), seen=known)
    assert record['notes'] == []


def test_nothing_found_and_missing_slices(volume):
  record, place = _make(volume, follow.Nodule(_view((5, 11, 21)), notes=['so']))
  assert record['status'] == 'nothing found' and record['notes'] == ['so']
  mask = record['mask']
  assert mask['slices'] == 0 and mask['unmeasured_slices'] == []
  assert all(
    mask[name] is None for name in mask.keys() - {'slices', 'unmeasured_slices'}
  )
  assert records.table([record]).splitlines()[1].split()[1:3] == ['-', '-']
  row = records.picture_row(place, follow.Nodule(_view((5, 11, 21))), record)
  assert row.texts[0] == 'z=-292.5 mm, slice 5' and len(row.texts) == 4
  missing = [ct_volume.SliceError('slice 6 is missing', ' (/secret/path)')]
  nodule = follow.Nodule(_view(), {4: np.array([[9, 20]])}, missing=missing)
  record, _ = _make(volume, nodule)
  assert record['status'] == 'incomplete'
  assert record['notes'] == ['the mask may be cut off: slice 6 is missing']


def test_slices_for_the_page(volume):
  """The mask has two pixels and leaves out others; one slice has no mask."""
  judged, above = _view(), _view((5, 11, 21))
  above.fine[:] = False
  # The patch begins at (10 - 32, 20 - 32), so `fine` is 8..11 by 18..21.
  kept = np.array([[8, 18], [8, 19]])
  below = _view((3, 10, 20))  # It has a mask that is not the nodule's.
  views = {3: below, 4: judged, 5: above}
  nodule = follow.Nodule(judged, {4: kept}, views=views)
  truth = _view().coarse
  readers = {
    'split': 'test',
    'diameter_mm': 4.0,
    'malignancy_rating_mean': 3.0,
  }
  record, place = _make(volume, nodule, truth=truth, readers=readers)
  shown = records.slices(place, nodule, volume, record)
  assert [one.title for one in shown.slices] == [
    'slice 5, z = -292.5 mm',
    'slice 4, z = -294 mm',
    'slice 3, z = -295.5 mm',
  ]
  first, second, third = shown.slices
  assert shown.judged == 1
  assert (first.note, third.note) == ('no mask', 'not counted')
  np.testing.assert_array_equal(third.outlines['left-out'], below.fine)
  # The diameter is two pixels, from edge to edge.
  assert second.note == "1.4 mm, on the point's slice"
  assert np.argwhere(second.outlines['fine']).tolist() == [[30, 30], [30, 31]]
  assert second.outlines['left-out'].sum() == 16 - 2
  assert not second.outlines['left-out'][30, 30:32].any()
  np.testing.assert_array_equal(second.outlines['coarse'], judged.coarse)
  np.testing.assert_array_equal(second.outlines['readers'], truth)
  # The readers' mask is only known for the view that was judged.
  assert 'readers' not in first.outlines
  assert not first.outlines['fine'].any()
