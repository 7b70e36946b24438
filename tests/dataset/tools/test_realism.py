"""The classifier of phantoms and CT finds differences and only those."""

import numpy as np
import pytest

from tfds_lidc.tools import realism

ROWS, COLS = np.mgrid[:64, :64]
DISC = (np.hypot(ROWS - 32, COLS - 32) < 6).astype(int)


def patches(num, rng, *, lung=-860.0, noise=20.0, nodule=20.0):
  """Draws (num, 64, 64) HU of a disc in lung."""
  clean = np.where(DISC, nodule, lung)
  return clean + noise * rng.normal(size=(num, 64, 64))


def classify(simulated, real, num):
  votes, readers = [DISC] * num, [1] * num
  numbers, groups = realism.table(real, votes, readers)
  others, _ = realism.table(simulated, votes, readers)
  patients = np.arange(num) // 2
  return realism.separability(
    numbers, others, groups, folds=patients % 3, patients=patients
  )


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
  monkeypatch.setattr(realism, '_NUM_TREES', 30)
  monkeypatch.setattr(realism, '_REPLICATES', 100)


def test_features_of_a_disc():
  image = np.where(DISC, 20.0, -860.0)
  image[0] = 3000.0  # outside the window, where crops are mirrored
  found = realism.features(image, DISC, 1)
  assert found['level of the lung'] == [-860.0] * 4
  # Quantiles of pixels three pixels away, then shares of dense ones.
  around = found['what lies around']
  assert around[:7] == [-860.0] * 7 and around[7:11] == [0.0] * 4
  # Mean and standard deviation of each shell inside, from the outermost.
  assert found['inside'][:4] == [20.0, 0.0, 20.0, 0.0]
  assert len({len(numbers) for numbers in found.values()}) > 1


def test_patches_of_one_distribution_are_not_distinguished():
  rng = np.random.default_rng(0)
  found = classify(patches(60, rng), patches(60, rng), 60)
  assert 0.3 < found.auc < 0.7
  assert found.ci95[0] < found.auc < found.ci95[1]


def test_auc_of_a_group_shows_what_differs():
  rng = np.random.default_rng(0)
  found = classify(patches(60, rng, noise=40.0), patches(60, rng), 60)
  assert found.auc > 0.99 and found.by_group['noise'] > 0.99
  # Here only the level of the nodule differs.
  found = classify(patches(60, rng, nodule=120.0), patches(60, rng), 60)
  assert found.by_group['inside'] > 0.99
  assert found.by_group['level of the lung'] < 0.7


def test_patch_without_lung_has_features():
  rng = np.random.default_rng(0)
  dense = patches(12, rng, lung=0.0)
  found = classify(dense, patches(12, rng), 12)
  assert found.auc > 0.9
