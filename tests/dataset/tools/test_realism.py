"""The classifier that tells phantoms from CT knows what it is told."""

import numpy as np
import pytest

from tfds_lidc.tools import realism

ROWS, COLS = np.mgrid[:64, :64]
DISC = (np.hypot(ROWS - 32, COLS - 32) < 6).astype(int)


def patches(count, rng, *, lung=-860.0, noise=20.0, nodule=20.0):
  clean = np.where(DISC, nodule, lung)
  return clean + noise * rng.normal(size=(count, 64, 64))


def told(simulated, real, count):
  votes, readers = [DISC] * count, [1] * count
  numbers, groups = realism.table(real, votes, readers)
  others, _ = realism.table(simulated, votes, readers)
  patients = np.arange(count) // 2
  return realism.separability(
    numbers, others, groups, folds=patients % 3, patients=patients
  )


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
  monkeypatch.setattr(realism, '_NUM_TREES', 30)
  monkeypatch.setattr(realism, '_REPLICATES', 100)


def test_features_of_a_disc():
  image = np.where(DISC, 20.0, -860.0)
  image[0] = 3000.0  # Beyond the window, where crops are mirrored.
  found = realism.features(image, DISC, 1)
  assert found['level of the lung'] == [-860.0] * 4
  # Quantiles of what is three pixels off, and nothing of it is dense.
  around = found['what lies around']
  assert around[:7] == [-860.0] * 7 and around[7:11] == [0.0] * 4
  # Shells inside: mean and standard deviation, from the first pixel on.
  assert found['inside'][:4] == [20.0, 0.0, 20.0, 0.0]
  assert len({len(numbers) for numbers in found.values()}) > 1


def test_what_is_drawn_alike_is_not_told_apart():
  rng = np.random.default_rng(0)
  found = told(patches(60, rng), patches(60, rng), 60)
  assert 0.3 < found.auc < 0.7
  assert found.ci95[0] < found.auc < found.ci95[1]


def test_it_is_told_by_what_differs():
  rng = np.random.default_rng(0)
  found = told(patches(60, rng, noise=40.0), patches(60, rng), 60)
  assert found.auc > 0.99 and found.by_group['noise'] > 0.99
  # The level of the nodule alone.
  found = told(patches(60, rng, nodule=120.0), patches(60, rng), 60)
  assert found.by_group['inside'] > 0.99
  assert found.by_group['level of the lung'] < 0.7


def test_a_patch_without_lung_has_numbers_as_well():
  rng = np.random.default_rng(0)
  dense = patches(12, rng, lung=0.0)
  found = told(dense, patches(12, rng), 12)
  assert found.auc > 0.9
