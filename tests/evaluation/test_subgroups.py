"""The nodules and the estimates of each group."""

import numpy as np
import pytest

from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import subgroups


def record(patient, diameter, texture, agreement, label, probability, dice):
  return {
    'patient_id': patient,
    'diameter_mm': diameter,
    'texture': texture,
    'reader_dice': agreement,
    'num_readers': 4,
    'label': label,
    'malignancy_probability': probability,
    'fine_dice': dice,
  }


RECORDS = [
  record('a', 5.999, 1.5, 0.5, 0, 0.1, 0.2),
  record('a', 6.0, 5.0, 0.8, 1, 0.9, 0.4),
  record('b', 7.9, 5.0, 0.75, 0, 0.7, 0.6),
  record('c', 20.0, 2.0, None, -1, 0.5, 0.8),
]


@pytest.fixture(scope='module', name='groups')
def _groups():
  return {
    (group.family, group.name): group
    for group in subgroups.make(RECORDS, seed=0)
  }


def _sizes(groups):
  return [(key, group.nodules) for key, group in groups.items()]


def _counts(group):
  return group.nodules, group.patients, group.labelled, group.malignant


def test_a_group_includes_its_lower_edge(groups):
  sizes = {k: _counts(v) for k, v in groups.items() if k[0] == 'Diameter'}
  assert sizes == {
    ('Diameter', 'below 6 mm'): (1, 1, 1, 0),
    ('Diameter', '6 to 8 mm'): (2, 2, 2, 1),
    ('Diameter', '15 mm and more'): (1, 1, 0, 0),
  }
  texture = 'Texture (mean rating)'
  assert _counts(groups[texture, 'non-solid, below 2']) == (1, 1, 1, 0)
  assert _counts(groups[texture, 'part-solid, 2 to 4']) == (1, 1, 0, 0)
  assert _counts(groups[texture, 'solid, 4 and more']) == (2, 2, 2, 1)


def test_nodules_without_the_value_are_in_no_group_of_the_family(groups):
  family = "Readers' Dice with each other"
  found = {
    name: _counts(g)[0] for (f, name), g in groups.items() if f == family
  }
  assert found == {'below 75 %': 1, '75 to 85 %': 2}


def test_estimates_by_hand(groups):
  estimates = groups['Diameter', '6 to 8 mm'].estimates
  assert estimates['fine_dice']['value'] == pytest.approx(0.5)
  # 0.9 is malignant and found, 0.7 is benign and misclassified.
  assert estimates['accuracy']['value'] == 0.5
  assert estimates['auc']['value'] == 1.0
  assert estimates['reader_dice']['value'] == pytest.approx(0.775)
  assert 'coarse_dice' not in estimates


def test_patients_of_the_group_are_resampled(groups):
  # Patients a (0.4) and b (0.6), drawn twice: means 0.4, 0.5 or 0.6.
  found = groups['Diameter', '6 to 8 mm'].estimates['fine_dice']['ci95']
  weights = bootstrap.patient_weights(['a', 'b'], seed=0)
  expected = np.quantile(weights @ [0.4, 0.6] / 2, (0.025, 0.975))
  assert found == pytest.approx(expected.tolist()) == [0.4, 0.6]


def test_one_patient_has_no_interval(groups):
  estimates = groups['Diameter', 'below 6 mm'].estimates
  assert estimates['fine_dice'] == {'value': 0.2, 'ci95': None}
  assert estimates['auc'] == {'value': None, 'ci95': None}


def test_a_run_without_a_classifier_has_groups():
  records = [
    {k: v for k, v in row.items() if k != 'malignancy_probability'}
    for row in RECORDS
  ]
  for group in subgroups.make(records, seed=0):
    assert set(group.estimates) == {'reader_dice', 'fine_dice'}
