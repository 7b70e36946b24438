"""Tests that `predict` on scans of LIDC-IDRI agrees with `evaluate`."""

import ct_files
import dicom_files
import highdicom
import numpy as np
import predict_job
import pydicom
import pytest
import seg_frames

from mtnet_jax import predict
from mtnet_jax.ct import fields
from mtnet_jax.ct import follow
from mtnet_jax.ct import series
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.evaluation import records
from mtnet_jax.models import nets
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import workdir
from tfds_lidc import build
from tfds_lidc.ct import pixels as dicom_pixels
from tfds_lidc.nodules import annotations


@pytest.fixture(scope='module')
def annotated(tmp_path_factory):
  """Slices of LIDC-IDRI-0003 with its nodules, and the dataset built of them.

  All pixels that any reader marked are bright, so that the fake model's mask is
  larger than the consensus.
  """
  root = tmp_path_factory.mktemp('annotated')
  positions = annotations.slice_positions(dicom_files.SCAN_ID)
  needed = np.searchsorted(positions, np.subtract(dicom_files.needed_z(), 0.1))
  rng = np.random.default_rng(0)
  hu = rng.integers(-920, -880, (len(needed), 512, 512)).astype(np.int16)
  for nodule in dicom_files.nodules():
    readers = annotations.reader_masks(nodule.scan_id, nodule.annotation_ids)
    first, row, col = readers.origin
    for k, votes in enumerate(readers.masks.any(axis=0), first):
      for at in np.flatnonzero(needed == k):
        box = hu[at, row : row + votes.shape[0], col : col + votes.shape[1]]
        box[votes] = ct_files.NODULE_HU
  ct_files.write(
    root / 'ct',
    hu,
    z_mm=positions[needed],
    series_uid=dicom_files.SERIES_UID,
    PixelSpacing=[predict_job.LIDC_SPACING_MM] * 2,
  )
  build.build('all', lidc_dir=root / 'ct', data_dir=root / 'data')
  data = [
    lidc.load_split('lidc_nodules/all', split, data_dir=root / 'data')
    for split in lidc.built_splits('lidc_nodules/all', root / 'data')
  ]
  return root / 'ct', nodules_lib.concatenate(data)


def _assert_as_evaluated(out, expected, atol):
  results = {r['id']: r for r in predict_job.read(out)['points']}
  assert results.keys() == {e['nodule_id'] for e in expected}
  assert len(results) == 4
  for theirs in expected:
    ours = results[theirs['nodule_id']]
    for name in ('fine_dice', 'coarse_dice'):
      assert ours[name] == pytest.approx(theirs[name], abs=atol)
    assert ours['malignancy_probability'] == pytest.approx(
      theirs['malignancy_probability'], abs=1e-4
    )
    assert ours['readers']['diameter_mm'] == pytest.approx(
      theirs['diameter_mm']
    )


def test_annotated_dice_is_that_of_evaluate(annotated, tmp_path, model, capsys):
  directory, data = annotated
  first = str(data.info['nodule_id'][0])
  model.seen = seen_lib.Seen(
    frozenset(
      {(first, 'LIDC-IDRI-0003', 'train'), ('elsewhere', 'another', 'train')}
    )
  )
  model.spacing_mm = predict_job.LIDC_SPACING_MM
  found = model.predict(data.image, data.info['pixel_spacing_mm'])
  expected = records.make_records(
    data,
    {
      'coarse': found.coarse_mask,
      'fine': found.mask,
      'class': found.malignancy,
    },
  )
  # The CT has only the slices with nodules, so masks are cut off.
  assert predict_job.run(directory, tmp_path / 'out', None, '--annotated') == 1
  assert capsys.readouterr().err.count('may be cut off') >= 4
  _assert_as_evaluated(tmp_path / 'out', expected, atol=0)
  for record in predict_job.read(tmp_path / 'out')['points']:
    known = 'this nodule' if record['id'] == first else 'other nodules of its'
    (note,) = [note for note in record['notes'] if 'the model was' in note]
    assert note.startswith(f'the model was trained on {known}')
  assert any(e['fine_dice'] < 1 for e in expected)
  assert all(0.5 < e['fine_dice'] != e['coarse_dice'] > 0.5 for e in expected)


def _names(tree, path=()):
  """Dotted names of all keys; the dicts of a list share their names."""
  if isinstance(tree, dict):
    for key, value in tree.items():
      yield '.'.join((*path, key))
      yield from _names(value, (*path, key))
  elif isinstance(tree, list):
    for value in tree:
      yield from _names(value, path)


def test_every_written_field_is_described(
  annotated, directory, tmp_path, model
):
  far = f'{predict_job.POINTS}far,500,1,1\n'
  predict_job.run(directory, tmp_path / 'points', far)
  model.spacing_mm = predict_job.LIDC_SPACING_MM
  flags = ('--annotated', '--symmetries')
  predict_job.run(annotated[0], tmp_path / 'annotated', None, *flags)
  written = {
    name
    for out in ('points', 'annotated')
    for name in _names(predict_job.read(tmp_path / out))
  }
  assert written == fields.FIELDS.keys()
  text = fields.text()
  assert all(f'\n{name}: ' in text for name in written)


@pytest.mark.slow
def test_restored_networks_agree_with_evaluate(
  annotated, made_run_dir, tmp_path
):
  directory, data = annotated
  config = workdir.read_config(made_run_dir)
  outputs = outputs_lib.predict(
    config,
    workdir.load_variables(made_run_dir, nets.ORDER),
    data,
    progress=lambda x: x,
  )
  expected = records.make_records(data, outputs)
  out = tmp_path / 'out'
  code = predict.main(
    [
      f'--checkpoint={made_run_dir}',
      f'--dicom={directory}',
      '--annotated',
      f'--out={out}',
    ]
  )
  assert code in (0, 1)  # random networks may mark nothing
  # One pixel in a thousand may be at the threshold.
  _assert_as_evaluated(out, expected, atol=2e-3)
  assert predict_job.read(out)['model'] == 'made'


@dicom_files.needs_real_series
def test_a_real_series_and_its_segmentation(tmp_path, model, monkeypatch):
  model.spacing_mm = predict_job.LIDC_SPACING_MM
  out, volumes, nodules, read = tmp_path / 'out', [], {}, []
  sizes, leaking, running = [], [], []
  real_choose, real_follow = series.choose, follow.follow
  real_read = dicom_pixels.try_read_hu

  def choose(*args, **kwargs):
    volumes.append(real_choose(*args, **kwargs))
    return volumes[-1]

  def follow_and_keep(*args, **kwargs):
    nodules.update(enumerate(real_follow(*args, **kwargs), 1))
    return list(nodules.values())

  monkeypatch.setattr(series, 'choose', choose)
  monkeypatch.setattr(follow, 'follow', follow_and_keep)
  monkeypatch.setattr(
    dicom_pixels,
    'try_read_hu',
    lambda path: read.append(path) or real_read(path),
  )
  assert predict_job.run(dicom_files.REAL_DIR, out, None, '--annotated') == 0
  results = predict_job.read(out)
  assert results['simulated_ct'] is False and len(results['points']) == 4
  # Each slice that a nodule needs is read once, and no other slice.
  assert len(read) == len(set(read)) < len(volumes[0])

  # pydicom puts the frames onto the source slices that they name.
  (directory,) = {p.parent for p in dicom_files.REAL_DIR.rglob('*.dcm')}
  path = out / 'segmentation.dcm'
  found = seg_frames.place(path, directory, volumes[0].shape)
  assert sorted(found) == [1, 2, 3, 4]
  # highdicom gives positions in the patient.
  segmentation = highdicom.seg.segread(path)
  source = pydicom.dcmread(read[0], stop_before_pixels=True)
  assert segmentation.FrameOfReferenceUID == source.FrameOfReferenceUID
  assert segmentation.StudyInstanceUID == source.StudyInstanceUID
  in_patient = segmentation.get_volume(combine_segments=False)
  for number, record in enumerate(results['points'], 1):
    mask = np.zeros(volumes[0].shape, bool)
    masks = nodules[number]
    for k, pixels in masks.pixels.items():
      mask[k][tuple(pixels.T)] = True
    sizes.append(mask.sum())
    np.testing.assert_array_equal(found[number], mask)
    theirs = in_patient.map_indices_to_reference(
      np.argwhere(in_patient.array[..., number - 1])
    )
    np.testing.assert_allclose(
      sorted(map(tuple, np.round(theirs, 3))),
      sorted(volumes[0].to_mm(voxel) for voxel in np.argwhere(mask)),
      atol=2e-3,
    )
    leaks = record['mask']['unmeasured_slices']
    start = record['voxel']['slice']
    leaking.append(start in leaks)
    running.append(max(2.5 * abs(k - start) for k in masks.pixels) >= 30)
    mask[leaks] = False
    volume_mm3 = mask.sum() * predict_job.LIDC_SPACING_MM**2 * 2.5
    assert record['mask']['volume_mm3'] == (
      None
      if leaking[-1] or running[-1]
      else pytest.approx(volume_mm3, rel=1e-4)
    )
  assert min(sizes) > 0 and max(sizes) > 2000
  # A threshold cannot separate the last nodule from the chest wall,
  assert leaking == [False, False, False, True]
  # nor the second one from the tissue below it, which is followed to the limit.
  assert running == [False, True, False, False]
