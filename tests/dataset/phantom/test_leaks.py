"""Only the outline and the ratings of a phantom depend on its label.

A random forest on simple features of the patches stands for any classifier.
Each search for a leak is run on records with a planted leak too, and finds it.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import patch_features
import pytest

from tfds_lidc import build
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import patch as phantom_patch
from tfds_lidc.phantom import scanner

# Standard deviation of the noise added to malignant nodules. The scanners' own
# noise is 8 to 100 HU, typically 28, so these tests cannot find a smaller leak.
PLANTED_HU = 24.0
# Level of confidence intervals; high, as several tests share one draw.
LEVEL = 0.99


class Nodules(NamedTuple):
  """All records, in the order of their files."""

  records: list
  labels: np.ndarray
  folds: np.ndarray
  patients: np.ndarray

  def features(self, *groups, records=None):
    """Returns (nodules, features) of functions of a record."""
    return np.array(
      [
        [x for group in groups for x in group(record)]
        for record in records or self.records
      ]
    )

  def interval(self, statistic, *arrays):
    return patch_features.interval(
      statistic, self.patients, *arrays, level=LEVEL
    )


@pytest.fixture(scope='module')
def nodules(phantom_data_dir):
  opened = build.build('phantom', data_dir=phantom_data_dir)
  records = []
  for split in selection.SPLITS:
    source = opened.as_data_source(split)
    records += [
      {**r, 'position': i / len(source)} for i, r in enumerate(source)
    ]
  return Nodules(
    records,
    *(
      np.array([r[name] for r in records])
      for name in ('label', 'fold', 'patient_id')
    ),
  )


@pytest.fixture(scope='module')
def planted(nodules):
  """The records with a leak: malignant nodules have more noise."""
  rng = np.random.default_rng(0)
  leaking = []
  for record in nodules.records:
    noise = PLANTED_HU * scanner.noise(0.8, rng)[..., None]
    image = np.rint(record['image'] + record['label'] * noise)
    leaking.append({**record, 'image': image.astype(np.int16)})
  return leaking


def _difference(one, other, labels):
  return patch_features.auc(one, labels) - patch_features.auc(other, labels)


def _correlation(a, b):
  return np.corrcoef(a, b)[0, 1]


def test_patch_depends_only_on_outline_and_visible_ratings():
  policy = selection.POLICIES['paper']
  for nodule in selection.select(policy)[::150]:
    (patch,) = patches.place_nodule(nodule, policy)
    other = dataclasses.replace(
      nodule,
      label=1 - nodule.label,
      malignancy=tuple(6 - m for m in nodule.malignancy),
      diameter_mm=1.0,
      slice_thickness_mm=9.0,
      fold=(nodule.fold + 1) % 5,
      patient_id='nobody',
      series_uid='none',
    )
    np.testing.assert_array_equal(
      phantom_patch.simulate(nodule, patch),
      phantom_patch.simulate(other, patch),
    )
    # The comparison would find a difference.
    other = dataclasses.replace(nodule, nodule_id='another')
    assert (
      phantom_patch.simulate(nodule, patch)
      != phantom_patch.simulate(other, patch)
    ).any()


def test_order_of_records_is_independent_of_labels(nodules):
  for split in ('train', 'validation', 'test'):
    part = np.array(
      [f in selection.SPLITS[split] for f in nodules.folds], dtype=bool
    )
    labels = nodules.labels[part]
    position = np.array([r['position'] for r in nodules.records])[part]
    benign, malignant = (int((labels == i).sum()) for i in (0, 1))
    # Standard deviation of the AUC in a random order (Mann-Whitney).
    sd = np.sqrt((benign + malignant + 1) / (12 * benign * malignant))
    assert abs(patch_features.auc(position, labels) - 0.5) < 3 * sd
    # Neighbours have the same label as often as in a random order.
    same_label = (labels[1:] == labels[:-1]).mean()
    p = malignant / len(labels)
    expected = p**2 + (1 - p) ** 2
    sd = np.sqrt(expected * (1 - expected) / len(labels))
    assert abs(same_label - expected) < 4 * sd


@pytest.mark.slow
def test_auc_of_shuffled_labels_is_one_half(nodules):
  features = nodules.features(
    patch_features.outline, patch_features.nodule, patch_features.background
  )
  rng = np.random.default_rng(0)
  aucs = []
  for seed in range(4):
    # Labels are shuffled within folds, so that each fold keeps its share of
    # malignant nodules. Otherwise a fold with more of them leaves fewer for
    # training, and pooled scores fall below chance.
    shuffled = nodules.labels.copy()
    for fold in np.unique(nodules.folds):
      part = np.flatnonzero(nodules.folds == fold)
      shuffled[part] = nodules.labels[rng.permutation(part)]
    scores = patch_features.out_of_fold(
      features, shuffled, nodules.folds, num_trees=100, seed=seed
    )
    aucs.append(patch_features.auc(scores, shuffled))
  benign, malignant = np.bincount(nodules.labels)
  sd = np.sqrt((benign + malignant + 1) / (12 * benign * malignant))
  assert max(abs(np.array(aucs) - 0.5)) < 3 * sd, aucs
  assert abs(np.mean(aucs) - 0.5) < 3 * sd / np.sqrt(len(aucs)), aucs


@pytest.mark.slow
def test_bookkeeping_does_not_predict_labels(nodules):
  scores = patch_features.out_of_fold(
    nodules.features(patch_features.bookkeeping), nodules.labels, nodules.folds
  )
  low, high = nodules.interval(patch_features.auc, scores, nodules.labels)
  assert low < 0.5 < high


@pytest.mark.slow
def test_background_adds_nothing_to_outline_and_ratings(nodules, planted):
  # The background depends on the size of the nodule: most walls and vessels
  # keep clear of it, and a large nodule leaves less quiet lung to measure noise
  # in. So background features alone have an AUC of 0.53 to 0.58. They must not
  # predict the residual of a prediction from outline and ratings.
  predicted = patch_features.out_of_fold(
    nodules.features(patch_features.ratings, patch_features.outline),
    nodules.labels,
    nodules.folds,
  )
  residual = nodules.labels - predicted

  def correlation(columns, records=None):
    features = nodules.features(
      patch_features.background, patch_features.bookkeeping, records=records
    )
    estimate = patch_features.out_of_fold(
      features[:, columns], residual, nodules.folds
    )
    return nodules.interval(_correlation, estimate, residual)

  for columns in (patch_features.SCANNER, slice(None)):
    assert correlation(columns)[0] < 0
    assert correlation(columns, planted)[0] > 0


@pytest.mark.slow
def test_image_features_do_not_beat_the_ratings(nodules, planted):
  ceiling = patch_features.out_of_fold(
    nodules.features(patch_features.ratings), nodules.labels, nodules.folds
  )
  # A forest on the ratings had an AUC of 0.936 before there were phantoms.
  low, high = nodules.interval(patch_features.auc, ceiling, nodules.labels)
  assert low < 0.936 < high

  def auc_and_difference(records):
    scores = patch_features.out_of_fold(
      nodules.features(
        patch_features.outline,
        patch_features.nodule,
        patch_features.background,
        records=records,
      ),
      nodules.labels,
      nodules.folds,
    )
    return (
      patch_features.auc(scores, nodules.labels),
      nodules.interval(_difference, scores, ceiling, nodules.labels),
    )

  auc, (low, high) = auc_and_difference(nodules.records)
  assert low < 0
  # The patch shows the ratings: its AUC is above that of the diameter (0.857)
  # and of the outline (0.889).
  assert auc > 0.90
  _, (low, _) = auc_and_difference(planted)
  assert low > 0
