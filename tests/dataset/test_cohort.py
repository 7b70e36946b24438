"""The nodules that each policy selects, and their labels."""

import collections
import dataclasses
import subprocess
import sys

import pytest

from tfds_lidc import errors
from tfds_lidc.nodules import selection


@pytest.mark.parametrize(
  'malignancy, agreement, mean, median',
  [
    ((3, 3), selection.OPEN, selection.OPEN, selection.OPEN),
    (
      (1, 4),
      selection.OPEN,
      selection.BENIGN,
      selection.BENIGN,
    ),  # 1/2; 2.5; 2.5
    (
      (2, 2, 4),
      selection.BENIGN,
      selection.BENIGN,
      selection.BENIGN,
    ),  # exactly 2/3
    (
      (2, 2, 5),
      selection.BENIGN,
      selection.OPEN,
      selection.BENIGN,
    ),  # 2/3; 3; 2
    (
      (4, 4, 2, 3),
      selection.MALIGNANT,
      selection.MALIGNANT,
      selection.MALIGNANT,
    ),
    (
      (4, 4, 1, 1),
      selection.OPEN,
      selection.BENIGN,
      selection.BENIGN,
    ),  # mean 2.5
    ((3, 3, 3, 5), selection.MALIGNANT, selection.MALIGNANT, selection.OPEN),
    ((1, 1, 1, 5), selection.BENIGN, selection.BENIGN, selection.BENIGN),
  ],
)
def test_label_rules(malignancy, agreement, mean, median):
  assert selection.label(malignancy, 'agreement') == agreement
  assert selection.label(malignancy, 'mean') == mean
  assert selection.label(malignancy, 'median') == median


def test_number_of_readers_per_cluster():
  sizes = collections.Counter(
    min(n.num_readers, 5) for n in selection.clusters()
  )
  assert sizes == {1: 771, 2: 488, 3: 481, 4: 897, 5: 14}


@pytest.mark.parametrize(
  'name, benign, malignant',
  [
    ('paper', 961, 462),
    ('paper_by_nodule', 961, 462),
    ('mean_2_readers', 977, 482),
    ('mean_1_reader', 1350, 526),
    ('mean_3_readers', 664, 432),
    ('median_3_readers', 448, 338),
  ],
)
def test_benign_and_malignant_nodules_of_a_policy(name, benign, malignant):
  labels = collections.Counter(
    n.label for n in selection.select(selection.POLICIES[name])
  )
  assert labels == {selection.BENIGN: benign, selection.MALIGNANT: malignant}


def test_policy_all_keeps_every_cluster():
  nodules = selection.select(selection.POLICIES['all'])
  assert len(nodules) == 2651
  assert {n.label for n in nodules} == {-1, 0, 1}


def test_patients_and_scans_of_the_policy_paper():
  nodules = selection.select(selection.POLICIES['paper'])
  assert len({n.patient_id for n in nodules}) == 675
  assert len({n.series_uid for n in nodules}) == 680


def test_limits_of_a_policy_are_inclusive():
  nodule = selection.clusters()[0]  # four readers, ratings 5 5 5 4
  policy = selection.Policy(
    'limits',
    min_readers=4,
    max_readers=4,
    min_diameter_mm=3.0,
    max_diameter_mm=25.0,
  )
  for diameter_mm, count in ((2.99, 0), (3.0, 1), (25.0, 1), (25.01, 0)):
    sized = dataclasses.replace(nodule, diameter_mm=diameter_mm)
    assert len(selection.select(policy, [sized])) == count
  sized = dataclasses.replace(nodule, diameter_mm=10.0)
  thin = dataclasses.replace(policy, max_thickness_mm=2.5)
  for thickness_mm, count in ((0.6, 1), (2.5, 1), (2.51, 0)):
    cut = dataclasses.replace(sized, slice_thickness_mm=thickness_mm)
    assert len(selection.select(thin, [cut])) == count
    assert len(selection.select(policy, [cut])) == 1
  for readers, count in ((3, 0), (4, 1), (5, 0)):
    read = dataclasses.replace(sized, annotation_ids=tuple(range(readers)))
    assert len(selection.select(policy, [read])) == count


def test_all_nodules_of_a_patient_share_a_fold():
  folds = collections.defaultdict(set)
  for nodule in selection.clusters():
    folds[nodule.patient_id].add(nodule.fold)
  assert all(len(found) == 1 for found in folds.values())
  # Eight patients have nodules in two scans.
  scans = collections.defaultdict(set)
  for nodule in selection.clusters():
    scans[nodule.patient_id].add(nodule.scan_id)
  assert sum(len(found) == 2 for found in scans.values()) == 8


def test_folds_are_stratified():
  counts = collections.Counter(
    (n.fold, n.label) for n in selection.select(selection.POLICIES['paper'])
  )
  assert len(counts) == 10
  for (_, label), count in counts.items():
    assert abs(count - (961, 462)[label] / 5) < 2


def test_split_by_nodule_separates_nodules_of_a_patient():
  nodules = selection.select(selection.POLICIES['paper_by_nodule'])
  folds = collections.defaultdict(set)
  for nodule in nodules:
    folds[nodule.patient_id].add(nodule.fold)
  assert any(len(found) > 1 for found in folds.values())
  # 1423 nodules, dealt by label: each fold has 193 or 192 benign and 93 or 92
  # malignant ones.
  counts = collections.Counter((n.fold, n.label) for n in nodules)
  assert set(counts.values()) == {193, 192, 93, 92}


def test_folds_form_three_splits():
  nodule = selection.clusters()[0]
  assert [dataclasses.replace(nodule, fold=f).split for f in range(5)] == [
    'train',
    'train',
    'train',
    'validation',
    'test',
  ]


def test_csv_round_trip():
  nodules = list(selection.clusters()[:20])
  assert selection.read_csv(selection.write_csv(nodules)) == nodules


def test_nodule_ids_are_unique():
  assert len({n.nodule_id for n in selection.clusters()}) == 2651


@pytest.mark.parametrize(
  'field, value',
  [
    ('label_rule', 'mode'),
    ('split_by', 'scan'),
    ('consensus', (3, 2)),
    ('consensus', (0, 2)),
  ],
)
def test_error_of_a_bad_policy_names_field_and_value(field, value):
  with pytest.raises(errors.InputError) as e:
    selection.Policy('mine', **{field: value})
  assert field in str(e.value) and str(value) in str(e.value)


def test_command_prints_the_counts():
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-m', 'tfds_lidc.cohort'],
    check=True,
    text=True,
    capture_output=True,
  )
  lines = {
    line.split()[0]: line.split()[1:]
    for line in done.stdout.splitlines()
    if line
  }
  assert lines['2651'][0] == 'clusters'
  assert lines['paper'][:6] == ['961', '462', '0', '1423', '675', '680']
  assert not done.stderr
