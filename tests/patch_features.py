"""Simple numbers about patches, and how well a forest tells labels by them."""

import hashlib

import numpy as np
from scipy import ndimage
from sklearn import ensemble
from sklearn import metrics

from tfds_lidc.nodules import annotations

_SHELLS = np.arange(-6, 5)  # px from the outline, positive inside
SCANNER = slice(0, 5)  # of `background`: the lung's level, and the noise
_FAR_PX = 20  # no sign of a nodule reaches that far, nor to the border


def ratings(record):
  """What the readers said, but for malignancy, and the diameter."""
  return [
    *(np.mean(record[r]) for r in annotations.RATINGS if r != 'malignancy'),
    record['diameter_mm'],
  ]


def outline(record):
  """The mask's size and shape."""
  mask = record['mask'][..., 0] > 0
  spacing = record['pixel_spacing_mm']
  rows, cols = np.nonzero(mask)
  wide = np.linalg.eigvalsh(np.cov(rows, cols) if len(rows) > 2 else np.eye(2))
  edge = mask & ~ndimage.binary_erosion(mask)
  return [
    len(rows) * spacing**2,
    edge.sum() * spacing,
    edge.sum() / np.sqrt(len(rows)),
    np.ptp(rows) + 1,
    np.ptp(cols) + 1,
    ndimage.distance_transform_edt(mask).max(),
    wide[0] / max(wide[1], 1e-6),
    spacing,
  ]


def nodule(record):
  """Attenuation of the nodule and of the shells around its outline."""
  hu = record['image'][..., 0].astype(float)
  mask = record['mask'][..., 0] > 0
  depth = ndimage.distance_transform_edt(mask)
  depth -= ndimage.distance_transform_edt(~mask)
  numbers = [*np.quantile(hu[mask], (0.05, 0.25, 0.5, 0.75, 0.95)), hu.max()]
  for shell in _SHELLS:
    part = hu[np.rint(depth) == shell]
    numbers += [part.mean(), part.std()] if part.size else [-2000, -2000]
  slope = np.hypot(*np.gradient(hu))
  numbers.append(slope[abs(depth) <= 1].mean())
  ring = hu[(depth <= -3) & (depth >= -5)]  # rays stand out of it
  numbers += [*np.quantile(ring, (0.5, 0.75, 0.9)), (ring > -700).mean()]
  return numbers


def background(record):
  """All that ought to be the same for both labels: what lies far off."""
  image = record['image'][..., 0]
  hu = image.astype(float)
  mask = record['mask'][..., 0] > 0
  far = ndimage.distance_transform_edt(~mask) > _FAR_PX
  lung = far & (hu < -750)
  if lung.sum() < 100:
    lung = far
  # Noise: what is left of the lung without its slow part, in its quietest
  # places. Elsewhere fine vessels outweigh it.
  rest = hu - ndimage.gaussian_filter(hu, 2)
  local = ndimage.uniform_filter(rest**2, 7)
  quiet = lung & (local <= np.quantile(local[lung], 0.1))
  var = (rest[quiet] ** 2).mean() + 1e-6
  along = (rest * np.roll(rest, 1, axis=1))[quiet].mean() / var
  down = (rest * np.roll(rest, 1, axis=0))[quiet].mean() / var
  border = np.concatenate([hu[0], hu[:, -1], hu[-1], hu[:, 0]])
  return [
    np.median(hu[lung]),
    np.sqrt(var),
    along,
    down,
    (image & 1).mean(),
    *np.quantile(hu[far], (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)),
    (hu[far] > -700).mean(),  # vessels and wall
    ((hu[far] > -700) & (hu[far] < -300)).mean(),
    hu.min(),
    *(side.mean() for side in np.split(border, 8)),
    (border > -300).mean(),
  ]


def bookkeeping(record):
  """Position in the file, and what seeds may be made of."""
  digest = hashlib.sha256(record['nodule_id']).digest()
  return [record['place'], len(record['nodule_id']), *digest[:8]]


def out_of_fold(features, target, folds, *, num_trees=200, seed=0):
  """A forest's predictions for each fold by the others' patients.

  Args:
    features: (n, k).
    target: (n,), labels of 0 and 1 or real numbers.
    folds: (n,), by patient.
    num_trees: of each forest.
    seed: of each forest.

  Returns:
    (n,), the probability of 1, or the expected target.
  """
  binary = set(np.unique(target)) <= {0, 1}
  forest = (
    ensemble.RandomForestClassifier
    if binary
    else ensemble.RandomForestRegressor
  )
  predicted = np.zeros(len(target))
  for fold in np.unique(folds):
    held_out = folds == fold
    model = forest(
      num_trees, min_samples_leaf=3, max_features='sqrt', random_state=seed
    ).fit(features[~held_out], target[~held_out])
    predicted[held_out] = (
      model.predict_proba(features[held_out])[:, 1]
      if binary
      else model.predict(features[held_out])
    )
  return predicted


def auc(scores, labels):
  return metrics.roc_auc_score(labels, scores)


def interval(statistic, patients, *arrays, level=0.95, num=500):
  """Bootstrap interval of a statistic over patients.

  Args:
    statistic: takes `arrays`, resampled.
    patients: (n,).
    *arrays: (n,) each.
    level: share of the resamplings inside.
    num: resamplings.

  Returns:
    (low, high).
  """
  rng = np.random.default_rng(0)
  _, inverse = np.unique(patients, return_inverse=True)
  members = [np.flatnonzero(inverse == i) for i in range(inverse.max() + 1)]
  values = []
  for _ in range(num):
    drawn = rng.integers(len(members), size=len(members))
    some = np.concatenate([members[i] for i in drawn])
    values.append(statistic(*(x[some] for x in arrays)))
  tail = (1 - level) / 2
  return tuple(np.quantile(values, (tail, 1 - tail)))
