"""From records to metrics: values derived by hand."""

import numpy as np
import pytest

from mtnet_jax import input_pipeline
from mtnet_jax import metrics
from mtnet_jax import scores


def record(patient, label, probability, diameter, coarse, fine):
  """A record; coarse and fine are (overlap, predicted, truth) of 100 pixels."""
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


# Logit of diameter d: d - 10.
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
  # Dice 2*5/20, 0, 1 (both empty), 1.
  assert coarse['dice']['value'] == pytest.approx((0.5 + 0 + 1 + 1) / 4)
  # Recall 5/10, 0, left out, 1.
  assert coarse['recall']['value'] == pytest.approx((0.5 + 0 + 1) / 3)


def test_pooled_values_count_all_pixels_together(summary):
  pooled = summary['segmentation']['coarse']['pooled']
  # Overlap 15, predicted 20, truth 40.
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
  # Of 0.9 | 0.6, 0.2 at 0.5: one benign of two is called malignant.
  values = {k: v['value'] for k, v in summary['classification'].items()}
  assert values == pytest.approx(
    {'accuracy': 2 / 3, 'auc': 1.0, 'sensitivity': 1.0, 'specificity': 0.5}
  )


def test_diameter_only_uses_its_model(summary):
  # Logits 10 | -5, 2: 12 mm is called malignant as well.
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


def test_diameter_model_finds_the_logit_it_was_drawn_from():
  rng = np.random.default_rng(0)
  diameter = rng.uniform(3, 25, 20000)
  malignant = rng.random(20000) < 1 / (1 + np.exp(-(0.4 * diameter - 5)))
  plane = np.zeros((20000, 1, 1), np.int16)
  nodules = input_pipeline.Nodules(
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
