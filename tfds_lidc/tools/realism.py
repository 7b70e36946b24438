"""How well a classifier tells SIMULATED patches from real ones.

It sees numbers about a patch, with real and SIMULATED attenuation around the
same outlines, and is asked about patients that it was not trained on. An AUC of
one half would be phantoms that nobody can tell; what it looks at is what they
still lack.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from sklearn import ensemble
from sklearn import metrics

from tfds_lidc.nodules import patches

# Around the centre, where every patch shows CT and none of its border.
WINDOW_PX = 20
# Layers around the outline and inside it, in px; there is none of 0.
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
  """Numbers about one thing.

  Attributes:
    name: of what.
    columns: of the features.
  """

  name: str
  columns: list[int]


class Told(NamedTuple):
  """How well real and SIMULATED patches were told apart.

  Attributes:
    auc: over the patients that were held out.
    ci95: its interval, over patients.
    by_group: name of a group of numbers -> AUC of a classifier of these alone.
  """

  auc: float
  ci95: tuple[float, float]
  by_group: dict[str, float]


def features(image, votes, num_readers):
  """Numbers about the middle of a patch.

  Args:
    image: (64, 64) HU.
    votes: (64, 64), how many readers marked the pixel.
    num_readers: how many could have.

  Returns:
    group -> list of numbers; NaN for what is not there.
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

  def of(statistic, values, where):
    return float(statistic(values[where])) if where.any() else np.nan

  shells = [(low <= depth) & (depth <= high) for low, high in _SHELLS]
  around = depth <= -3
  lung = around & (hu < _LUNG_HU)
  quiet = _quiet(fine, lung)
  core = depth >= 3
  variance = of(np.mean, fine**2, quiet) + 1e-6
  return {
    'level of the lung': [
      of(lambda x, q=q: np.quantile(x, q), hu, lung)
      for q in (0.1, 0.25, 0.5, 0.75)
    ],
    'noise': [
      np.sqrt(variance),
      of(np.mean, fine * np.roll(fine, 1, 1), quiet) / variance,
      of(np.mean, fine * np.roll(fine, 1, 0), quiet) / variance,
      of(np.std, fine, lung),
    ],
    'what lies around': [
      *(of(lambda x, q=q: np.quantile(x, q), hu, around) for q in _QUANTILES),
      *(of(np.mean, hu > level, around) for level in (-700, -300, 0, 150)),
      of(np.mean, slope, around),
      of(np.std, slope, around),
    ],
    'ring': [
      number
      for shell in shells[:4]
      for number in (of(np.mean, hu, shell), of(np.std, hu, shell))
    ],
    'edge': [
      *(of(np.mean, slope, shell) for shell in shells[2:7]),
      *(of(np.std, slope, shell) for shell in shells[2:7]),
      of(np.mean, hu, shells[4]) - of(np.mean, hu, shells[3]),
      of(np.mean, hu, shells[5]) - of(np.mean, hu, shells[4]),
    ],
    'inside': [
      *(
        number
        for shell in shells[4:]
        for number in (of(np.mean, hu, shell), of(np.std, hu, shell))
      ),
      of(np.max, hu, depth > 0),
      of(np.std, fine, core),
    ],
  }


def _quiet(fine, lung):
  """Where the lung is quietest: a tenth of it, without fine vessels."""
  if not lung.any():
    return lung
  local = ndimage.uniform_filter(fine**2, 5)
  return lung & (local <= np.quantile(local[lung], 0.1))


def table(images, votes, num_readers):
  """(n, k) features of patches, and their `Group`s."""
  rows = [
    features(image, marks, count)
    for image, marks, count in zip(images, votes, num_readers, strict=True)
  ]
  groups, start = [], 0
  for name, numbers in rows[0].items():
    groups.append(Group(name, list(range(start, start + len(numbers)))))
    start += len(numbers)
  return np.array([sum(row.values(), []) for row in rows]), groups


def tell_apart(real, simulated, groups, *, folds, patients):
  """Trains the classifier and asks it.

  Args:
    real, simulated: (n, k) features of the same nodules.
    groups: of `table`.
    folds: (n,), by patient; each is asked by the classifier of the others.
    patients: (n,).

  Returns:
    `Told`.
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
  return Told(auc, ci95, by_group)


def _held_out(rows, target, folds):
  """(n,) probabilities of being SIMULATED, by trees of the other folds."""
  scores = np.zeros(len(target))
  rows = np.nan_to_num(rows, nan=-3000.0)
  for fold in np.unique(folds):
    out = folds == fold
    forest = ensemble.ExtraTreesClassifier(
      _NUM_TREES, min_samples_leaf=2, random_state=0
    ).fit(rows[~out], target[~out])
    scores[out] = forest.predict_proba(rows[out])[:, 1]
  return scores


def _auc(scores, target, patients):
  """The AUC and its 95 % interval from resampling patients."""
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
