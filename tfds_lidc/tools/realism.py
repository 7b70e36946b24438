"""Measures how well a classifier separates SIMULATED patches from real ones.

The classifier gets features of patches, with real and SIMULATED attenuation for
the same contours, and is tested on patients that it was not trained on. An AUC
of 0.5 would mean that phantoms cannot be distinguished from CT; the features
with a higher AUC are those that phantoms still lack.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import itertools
from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from sklearn import ensemble
from sklearn import metrics

from tfds_lidc.nodules import patches

# Half of the window in the middle, which excludes the borders of crops.
WINDOW_PX = 20
# Layers outside (negative) and inside the contour, in px; there is no layer 0.
_SHELLS = (
  (-10, -7),
  (-6, -4),
  (-3, -2),
  (-1, -1),
  (1, 1),
  (2, 2),
  (3, 4),
  (5, 9),
)
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_LUNG_HU = -750.0
_NUM_TREES = 300
_REPLICATES = 300


class Group(NamedTuple):
  """Features that describe the same property.

  Attributes:
    name: the property.
    columns: indices of the features.
  """

  name: str
  columns: list[int]


class Separability(NamedTuple):
  """How well a classifier separates real and SIMULATED patches.

  Attributes:
    auc: AUC over held-out patients.
    ci95: 95 % interval of the AUC, from resampling patients.
    by_group: name of a group -> AUC of a classifier with its features only.
  """

  auc: float
  ci95: tuple[float, float]
  by_group: dict[str, float]


def features(
  image: np.ndarray, votes: np.ndarray, num_readers: int
) -> dict[str, list[float]]:
  """Computes features of the middle of a patch.

  Args:
    image: (64, 64) HU.
    votes: (64, 64), number of readers who marked the pixel.
    num_readers: number of readers who marked the nodule.

  Returns:
    group -> features; NaN if their region is empty.
  """
  middle = patches.PATCH_SIZE // 2
  window = slice(middle - WINDOW_PX, middle + WINDOW_PX + 1)
  nodule = patches.consensus_mask(votes, num_readers, (1, 2))
  depth = ndimage.distance_transform_edt(nodule)
  depth = np.rint(depth - ndimage.distance_transform_edt(~nodule))
  hu = image.astype(float)
  slope = np.hypot(*np.gradient(hu))
  fine = hu - ndimage.gaussian_filter(hu, 1.0)
  hu, depth, slope, fine = (x[window, window] for x in (hu, depth, slope, fine))

  def of(
    statistic: Callable[[np.ndarray], Any],
    values: np.ndarray,
    where: np.ndarray,
  ) -> float:
    return float(statistic(values[where])) if where.any() else np.nan

  shells = [(low <= depth) & (depth <= high) for low, high in _SHELLS]
  around = depth <= -3
  lung = around & (hu < _LUNG_HU)
  quiet = _quiet(fine, lung)
  core = depth >= 3
  variance = of(np.mean, fine**2, quiet) + 1e-6
  return {
    'level of the lung': [
      of(functools.partial(np.quantile, q=q), hu, lung)
      for q in (0.1, 0.25, 0.5, 0.75)
    ],
    'noise': [
      np.sqrt(variance),
      of(np.mean, fine * np.roll(fine, 1, 1), quiet) / variance,
      of(np.mean, fine * np.roll(fine, 1, 0), quiet) / variance,
      of(np.std, fine, lung),
    ],
    'what lies around': [
      *(
        of(functools.partial(np.quantile, q=q), hu, around) for q in _QUANTILES
      ),
      *(of(np.mean, hu > level, around) for level in (-700, -300, 0, 150)),
      of(np.mean, slope, around),
      of(np.std, slope, around),
    ],
    'ring': [
      feature
      for shell in shells[:4]
      for feature in (of(np.mean, hu, shell), of(np.std, hu, shell))
    ],
    'edge': [
      *(of(np.mean, slope, shell) for shell in shells[2:7]),
      *(of(np.std, slope, shell) for shell in shells[2:7]),
      of(np.mean, hu, shells[4]) - of(np.mean, hu, shells[3]),
      of(np.mean, hu, shells[5]) - of(np.mean, hu, shells[4]),
    ],
    'inside': [
      *(
        feature
        for shell in shells[4:]
        for feature in (of(np.mean, hu, shell), of(np.std, hu, shell))
      ),
      of(np.max, hu, depth > 0),
      of(np.std, fine, core),
    ],
  }


def _quiet(fine: np.ndarray, lung: np.ndarray) -> np.ndarray:
  """Returns a mask of the quietest tenth of the lung, without fine vessels."""
  if not lung.any():
    return lung
  local = ndimage.uniform_filter(fine**2, 5)
  return lung & (local <= np.quantile(local[lung], 0.1))


def table(
  images: np.ndarray, votes: np.ndarray, num_readers: Sequence[int]
) -> tuple[np.ndarray, list[Group]]:
  """Computes the features of several patches.

  Args:
    images: (n, 64, 64) HU.
    votes: (n, 64, 64), number of readers who marked the pixel.
    num_readers: n numbers of readers who marked the nodule.

  Returns:
    (n, k) features, and the groups of their columns.
  """
  rows = [
    features(image, marks, count)
    for image, marks, count in zip(images, votes, num_readers, strict=True)
  ]
  groups: list[Group] = []
  start = 0
  for name, values in rows[0].items():
    groups.append(Group(name, list(range(start, start + len(values)))))
    start += len(values)
  flat = [list(itertools.chain.from_iterable(row.values())) for row in rows]
  return np.array(flat), groups


def separability(
  real: np.ndarray,
  simulated: np.ndarray,
  groups: Sequence[Group],
  *,
  folds: np.ndarray,
  patients: np.ndarray,
) -> Separability:
  """Trains and tests the classifier by cross-validation.

  Args:
    real: (n, k) features of nodules in CT.
    simulated: (n, k) features of the same nodules, SIMULATED.
    groups: groups of features, from `table`.
    folds: (n,) folds of patients; the classifier of the others tests each fold.
    patients: (n,) patients, which are resampled for the interval.

  Returns:
    The AUC of all features and of each group.
  """
  both = np.concatenate([real, simulated])
  is_simulated = np.repeat([0, 1], len(real))
  folds, patients = np.tile(folds, 2), np.tile(patients, 2)
  scores = _held_out(both, is_simulated, folds)
  auc, ci95 = _auc(scores, is_simulated, patients)
  by_group = {}
  for group in groups:
    scores = _held_out(both[:, group.columns], is_simulated, folds)
    by_group[group.name] = float(metrics.roc_auc_score(is_simulated, scores))
  return Separability(auc, ci95, by_group)


def _held_out(
  rows: np.ndarray, target: np.ndarray, folds: np.ndarray
) -> np.ndarray:
  """Computes (n,) probabilities of SIMULATED from trees of the other folds."""
  scores = np.zeros(len(target))
  rows = np.nan_to_num(rows, nan=-3000.0)
  for fold in np.unique(folds):
    out = folds == fold
    forest = ensemble.ExtraTreesClassifier(
      _NUM_TREES, min_samples_leaf=2, random_state=0
    ).fit(rows[~out], target[~out])
    scores[out] = forest.predict_proba(rows[out])[:, 1]
  return scores


def _auc(
  scores: np.ndarray, target: np.ndarray, patients: np.ndarray
) -> tuple[float, tuple[float, float]]:
  """Computes the AUC and its 95 % interval from resampling patients."""
  rng = np.random.default_rng(0)
  names, of_row = np.unique(patients, return_inverse=True)
  share = np.full(len(names), 1 / len(names))
  found = [
    metrics.roc_auc_score(
      target, scores, sample_weight=rng.multinomial(len(names), share)[of_row]
    )
    for _ in range(_REPLICATES)
  ]
  low, high = np.quantile(found, (0.025, 0.975))
  auc = metrics.roc_auc_score(target, scores)
  return float(auc), (float(low), float(high))
