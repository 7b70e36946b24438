"""Metrics of records, with values derived by hand."""

import numpy as np
import pytest

from mtnet_jax import metrics
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import scores


def record(patient, label, probability, diameter, coarse, fine):
  """Returns a record; masks are (overlap, predicted, truth) of 100 pixels."""
  out = {
    'patient_id': patient,
    'label': label,
    'malignancy_probability': probability,
    'diameter_mm': diameter,
  }
  for name, (overlap, predicted, truth) in (('coarse', coarse), ('fine', fine)):
    counts = {
      'overlap': [overlap],
      'predicted': [predicted],
      'truth': [truth],
      'pixels': [100],
    }
    values = {**metrics.segmentation_from_counts(counts), **counts}
    out.update(
      {
        f'{name}_{key}': None if np.isnan(value[0]) else value[0]
        for key, value in values.items()
      }
    )
  return out


# The logit of diameter d is d - 10.
DIAMETER_MODEL = {'slope': 1.0, 'intercept': -10.0}
RECORDS = [
  record('a', 1, 0.9, 20, coarse=(5, 10, 10), fine=(8, 8, 8)),
  record('b', 0, 0.6, 5, coarse=(0, 0, 20), fine=(10, 20, 20)),
  record('c', 0, 0.2, 12, coarse=(0, 0, 0), fine=(0, 0, 0)),
  record('d', -1, 0.99, 30, coarse=(10, 10, 10), fine=(10, 10, 10)),
]


@pytest.fixture(scope='module')
def summary():
  return scores.summarise(RECORDS, diameter_model=DIAMETER_MODEL, seed=0)


def test_segmentation_is_the_mean_over_nodules(summary):
  coarse = summary['segmentation']['coarse']
  # Dice is 2*5/20, 0, 1 (both empty), 1.
  assert coarse['dice']['value'] == pytest.approx((0.5 + 0 + 1 + 1) / 4)
  # Recall is 5/10, 0, undefined, 1.
  assert coarse['recall']['value'] == pytest.approx((0.5 + 0 + 1) / 3)


def test_pooled_values_count_all_pixels_together(summary):
  pooled = summary['segmentation']['coarse']['pooled']
  # The overlap is 15, predicted 20, truth 40.
  assert pooled['dice']['value'] == pytest.approx(2 * 15 / 60)
  assert pooled['jaccard']['value'] == pytest.approx(15 / 45)


def test_the_difference_is_paired(summary):
  # Fine Dice 1, 0.5, 1, 1 minus 0.5, 0, 1, 1.
  difference = summary['segmentation']['fine_minus_coarse']['dice']
  assert difference['value'] == pytest.approx(0.25)
  assert 0 <= difference['ci95'][0] <= 0.25 <= difference['ci95'][1]


def test_open_labels_count_for_segmentation_only(summary):
  assert (summary['nodules'], summary['labelled'], summary['malignant']) == (
    4,
    3,
    1,
  )
  # Malignant 0.9; benign 0.6, 0.2: at 0.5, one of two benign is misclassified.
  values = {k: v['value'] for k, v in summary['classification'].items()}
  assert values == pytest.approx(
    {'accuracy': 2 / 3, 'auc': 1.0, 'sensitivity': 1.0, 'specificity': 0.5}
  )


def test_diameter_only_uses_its_model(summary):
  # Malignant 10; benign -5, 2 (logits): 12 mm is misclassified.
  values = {k: v['value'] for k, v in summary['diameter_only'].items()}
  assert values == pytest.approx(
    {'accuracy': 2 / 3, 'auc': 1.0, 'sensitivity': 1.0, 'specificity': 0.5}
  )


def test_one_patient_has_values_without_intervals():
  alone = scores.summarise(
    [{**r, 'patient_id': 'a'} for r in RECORDS],
    diameter_model=DIAMETER_MODEL,
    seed=0,
  )
  dice = alone['segmentation']['fine']['dice']
  assert dice == {'value': pytest.approx(0.875), 'ci95': None}
  assert alone['classification']['auc']['ci95'] is None


def test_one_class_has_no_auc():
  benign = scores.summarise(RECORDS[1:3], diameter_model=DIAMETER_MODEL, seed=0)
  assert benign['classification']['auc'] == {'value': None, 'ci95': None}
  assert benign['classification']['specificity']['value'] == 0.5


def _without(records, *prefixes):
  return [
    {key: x for key, x in row.items() if not key.startswith(prefixes)}
    for row in records
  ]


@pytest.mark.parametrize(
  'prefixes, segmentation, classified',
  (
    (('fine',), {'coarse'}, True),
    (('coarse',), {'fine'}, True),
    (('coarse', 'fine'), set(), True),
    (('malignancy',), {'coarse', 'fine', 'fine_minus_coarse'}, False),
  ),
)
def test_networks_that_a_run_lacks_are_not_in_the_tree(
  summary, prefixes, segmentation, classified
):
  bare = scores.summarise(
    _without(RECORDS, *prefixes), diameter_model=DIAMETER_MODEL, seed=0
  )
  assert set(bare['segmentation']) == segmentation
  for part in (bare, bare['probabilities']):
    assert ('classification' in part) == classified
    assert ('classification_minus_diameter_only' in part) == classified
    assert 'diameter_only' in part
  # The other entries are unchanged.
  for name in segmentation:
    assert bare['segmentation'][name] == summary['segmentation'][name]
  assert bare['diameter_only'] == summary['diameter_only']


def test_probabilities_by_hand(summary):
  found = summary['probabilities']['classification']
  # Errors of 0.9 | 0.6, 0.2 are 0.1, 0.6 and 0.2; each has a bin of its own.
  assert found['brier']['value'] == pytest.approx((0.01 + 0.36 + 0.04) / 3)
  assert found['calibration_error']['value'] == pytest.approx(0.9 / 3)
  assert found['average_precision']['value'] == 1.0
  change = summary['probabilities']['classification_minus_diameter_only']
  other = summary['probabilities']['diameter_only']
  assert change['brier']['value'] == pytest.approx(
    found['brier']['value'] - other['brier']['value']
  )
  low, high = found['calibration_error_if_calibrated']['ci95']
  assert 0 <= low < high <= 1


def test_the_interval_of_the_calibration_error_contains_it():
  rng = np.random.default_rng(0)
  probabilities = rng.random(60)
  records = [
    record(str(i), int(rng.random() < p), p, 9, (5, 9, 9), (5, 9, 9))
    for i, p in enumerate(probabilities)
  ]
  tree = scores.summarise(records, diameter_model=DIAMETER_MODEL, seed=0)
  found = tree['probabilities']['classification']['calibration_error']
  low, high = found['ci95']
  assert low < found['value'] < high


def test_readers(summary):
  assert summary['readers'] == {'nodules': 0, 'patients': 0}
  readers = [
    {'reader_dice': 0.8, 'fine_reader_dice': 0.7, 'consensus_reader_dice': 0.9},
    {'reader_dice': 0.4, 'fine_reader_dice': 0.6, 'consensus_reader_dice': 0.7},
    {'reader_dice': None, 'fine_reader_dice': None},
  ]
  rows = [
    {**row, **more}
    for row, more in zip(_without(RECORDS, 'coarse'), readers, strict=False)
  ]
  tree = scores.summarise(rows, diameter_model=DIAMETER_MODEL, seed=0)
  found = tree['readers']
  assert (found['nodules'], found['patients']) == (2, 2)
  values = {key: x['value'] for key, x in found.items() if isinstance(x, dict)}
  assert values == pytest.approx(
    {
      'with_each_other': 0.6,
      'consensus': 0.8,
      'consensus_minus_with_each_other': 0.2,
      'fine': 0.65,
      'fine_minus_with_each_other': 0.05,
    }
  )
  # Patient a has -0.1, patient b +0.2.
  assert found['fine_minus_with_each_other']['ci95'] == (
    pytest.approx([-0.1, 0.2])
  )


def test_diameter_model_recovers_the_logit_of_drawn_labels():
  rng = np.random.default_rng(0)
  diameter = rng.uniform(3, 25, 20000)
  malignant = rng.random(20000) < 1 / (1 + np.exp(-(0.4 * diameter - 5)))
  plane = np.zeros((20000, 1, 1), np.int16)
  nodules = nodules_lib.Nodules(
    image=plane,
    mask=plane,
    votes=plane,
    label=malignant.astype(np.int32),
    info={'diameter_mm': diameter},
    simulated=True,
  )
  model = scores.fit_diameter_only(nodules)
  # Standard errors are about 0.005 and 0.06.
  assert model['slope'] == pytest.approx(0.4, abs=0.03)
  assert model['intercept'] == pytest.approx(-5, abs=0.3)
