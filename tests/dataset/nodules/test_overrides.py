"""Policies changed by `--policy`: their fields, names and records."""

import dataclasses
import math

import faulty_dicom
import main_job
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_lidc import build
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building
from tfds_lidc.nodules import overrides
from tfds_lidc.nodules import selection

_PAPER = selection.POLICIES['paper']


@pytest.mark.parametrize(
  'text, fields, name',
  [
    ('readers=3-4', {'min_readers': 3}, 'paper-readers_3_to_4'),
    (
      'readers=3-',
      {'min_readers': 3, 'max_readers': math.inf},
      'paper-readers_3_up',
    ),
    (
      'readers=4',
      {'min_readers': 4, 'max_readers': 4},
      'paper-readers_4_to_4',
    ),
    (
      'size=5.5-30',
      {'min_diameter_mm': 5.5, 'max_diameter_mm': 30},
      'paper-size_5.5_to_30',
    ),
    (
      'size=3.0000001-25',
      {'min_diameter_mm': 3.0000001},
      'paper-size_3.0000001_to_25',
    ),
    ('thickness=2.5', {'max_thickness_mm': 2.5}, 'paper-thickness_2.5mm'),
    ('label=median', {'label_rule': 'median'}, 'paper-label_median'),
    (
      'unlabelled=keep',
      {'keep_unlabelled': True},
      'paper-unlabelled_keep',
    ),
    ('consensus=2/4', {'consensus': (1, 2)}, 'paper-consensus_1_of_2'),
    ('slices=all', {'slices': 'all'}, 'paper-slices_all'),
    ('split_by=nodule', {'split_by': 'nodule'}, 'paper-split_by_nodule'),
    ('spacing=0.7', {'spacing_mm': 0.7}, 'paper-spacing_0.7mm'),
  ],
)
def test_override_sets_fields_and_name(text, fields, name):
  expected = dataclasses.replace(_PAPER, **fields, name=name)
  assert overrides.apply(_PAPER, text) == expected


def test_name_contains_only_fields_that_differ():
  one = overrides.apply(_PAPER, 'slices=all, readers=3-4')
  other = overrides.apply(_PAPER, 'readers=3-4,consensus=4/6,slices=all')
  assert one == other
  assert one.name == 'paper-readers_3_to_4-slices_all'
  # Values that the config already has change nothing.
  assert (
    overrides.apply(
      _PAPER,
      'readers=2-4,size=3-25,label=agreement,unlabelled=drop,consensus=2/3,'
      'slices=largest,split_by=patient,spacing=native',
    )
    == _PAPER
  )
  assert building.find_config('phantom', 'size=3-25').name == 'phantom'
  assert building.find_config('phantom', 'size=3-9').simulated


@pytest.mark.parametrize(
  'text, message',
  [
    ('reader=3', "'reader' is none of readers"),
    ('readers=3,readers=4', 'twice'),
    ('readers=many', 'readers=many'),
    ('readers=4-3', '4 to 3'),
    ('readers', 'readers'),
    ('consensus=0.5', 'consensus=0.5'),
    ('consensus=1/0', '(1, 0)'),
    ('consensus=3/2', '(3, 2)'),
    ('thickness=thin', 'thickness=thin'),
    ('thickness=0', '0.0'),
    ('thickness=nan', 'nan'),
    ('label=mode', 'mode'),
    ('unlabelled=maybe', 'maybe'),
    ('slices=two', 'two'),
    ('split_by=scan', 'scan'),
    ('spacing=thick', 'spacing=thick'),
    ('spacing=0', '0.0'),
  ],
)
def test_error_of_an_invalid_override(text, message):
  with pytest.raises(errors.InputError) as e:
    overrides.apply(_PAPER, text)
  assert message in str(e.value)


def test_override_of_all_selects_the_nodules_of_a_named_policy():
  # `mean_3_readers` has 664 benign and 432 malignant nodules.
  policy = overrides.apply(
    selection.POLICIES['all'], 'readers=3-,size=3-25,unlabelled=drop'
  )
  nodules = selection.select(policy)
  assert [sum(n.label == k for n in nodules) for k in (0, 1)] == [664, 432]


def _command(module, *args):
  return main_job.run(main_job.module(f'tfds_lidc.{module}', *args))


def test_cohort_prints_the_counts_of_an_override():
  done = _command('cohort', '--config=paper', '--policy=split_by=nodule')
  assert done.returncode == 0, done.stderr
  (line,) = (
    row
    for row in done.stdout.splitlines()
    if row.startswith('paper-split_by_nodule ')
  )
  assert line.split()[1:5] == ['961', '462', '0', '1423']
  done = _command('cohort', '--policy=size=9-3')
  assert done.returncode == 2 and done.stderr.count('\n') == 1


@pytest.fixture(scope='module')
def ct(tmp_path_factory):
  directory = tmp_path_factory.mktemp('ct')
  faulty_dicom.write_patient(directory, faulty_dicom.OTHER)
  return directory


def test_builds_of_two_policies_are_separate(ct, tmp_path):
  build.build('all', lidc_dir=ct, data_dir=tmp_path)
  done = _command(
    'build',
    '--config=all',
    f'--lidc_dir={ct}',
    f'--data_dir={tmp_path}',
    '--policy=slices=all,consensus=1/3',
  )
  assert done.returncode == 0, done.stderr
  assert 'WARNING' not in done.stderr
  name = 'all-consensus_1_of_3-slices_all'
  assert f'\n{name} ' in done.stdout  # its counts
  plain, changed = (
    list(tfds.data_source(f'lidc_nodules/{n}', split='test', data_dir=tmp_path))
    for n in ('all', name)
  )
  nodules = faulty_dicom.nodules_of(faulty_dicom.OTHER)
  assert len(plain) == len(nodules) == 3
  # There is a record for each slice where a third of the readers agree.
  expected = {
    (n.nodule_id, k)
    for n in nodules
    for k, votes in zip(
      faulty_dicom.extent(n), faulty_dicom.votes(n), strict=True
    )
    if (3 * votes >= n.num_readers).any()
  }
  assert {
    (r['nodule_id'].decode(), r['slice_index']) for r in changed
  } == expected
  assert len(changed) == len(expected) > 3
  for r in changed:  # HU are column + rank - 1024
    assert (r['image'][0, 1] - r['image'][0, 0]).item() == 1
    np.testing.assert_array_equal(
      r['mask'], 3 * r['votes'].astype(int) >= r['num_readers']
    )


def test_spacing_resamples_image_and_masks(ct, tmp_path):
  (nodule, *_) = faulty_dicom.nodules_of(faulty_dicom.OTHER)
  spacing_mm = 2 * nodule.pixel_spacing_mm
  builder = build.build(
    'all', lidc_dir=ct, data_dir=tmp_path, policy=f'spacing={spacing_mm}'
  )
  assert f'{spacing_mm}mm' in builder.builder_config.name
  record = next(
    r
    for r in builder.as_data_source('test')
    if r['nodule_id'].decode() == nodule.nodule_id
  )
  native = next(
    r
    for r in build.build('all', lidc_dir=ct, data_dir=tmp_path).as_data_source(
      'test'
    )
    if r['nodule_id'].decode() == nodule.nodule_id
  )
  assert record['pixel_spacing_mm'] == np.float32(spacing_mm)
  # The slice's ramp of 1 HU per column is 2 HU per column of the patch, around
  # the same centre.
  image = record['image'][..., 0].astype(int)
  assert image[32, 32] == native['image'][32, 32, 0]
  assert (np.diff(image[32, 20:44]) == 2).all()
  area = native['votes'].astype(bool).sum() / 4
  assert record['votes'].astype(bool).sum() == pytest.approx(area, rel=0.5)


def test_phantoms_accept_a_policy(tmp_path):
  few = tfds.download.DownloadConfig(max_examples_per_split=4)
  builder = build.build(
    'phantom',
    data_dir=tmp_path,
    policy='slices=all,spacing=0.8',
    download_config=few,
  )
  assert builder.info.metadata['simulated'] is True
  records = list(builder.as_data_source('train'))
  assert {r['pixel_spacing_mm'] for r in records} == {np.float32(0.8)}
  assert len({r['image'].tobytes() for r in records}) == len(records) == 4


@pytest.mark.parametrize(
  'text', ['size=1e308-1e308', 'slices=' + 'A' * 70_000, 'x' * 400]
)
def test_error_of_an_extreme_text_is_short(text):
  with pytest.raises(errors.InputError) as caught:
    overrides.apply(selection.POLICIES['paper'], text)
  assert len(str(caught.value)) < 1000
