"""Simple features of patches, and predictions of labels by a random forest."""

import hashlib

import numpy as np
from scipy import ndimage
from sklearn import ensemble
from sklearn import metrics

from tfds_lidc.nodules import annotations

_SHELLS = np.arange(-6, 5)  # distance from the outline in px, positive inside
SCANNER = slice(0, 5)  # columns of `background`: the lung's level and the noise
# Beyond this distance, and on the patch's border, a nodule changes no pixel.
_FAR_PX = 20


def ratings(record):
  """Mean ratings except malignancy, and the diameter."""
  return [
    *(np.mean(record[r]) for r in annotations.RATINGS if r != 'malignancy'),
    record['diameter_mm'],
  ]


def outline(record):
  """Size and shape of the mask."""
  mask = record['mask'][..., 0] > 0
  spacing = record['pixel_spacing_mm']
  rows, cols = np.nonzero(mask)
  variances = np.linalg.eigvalsh(
    np.cov(rows, cols) if len(rows) > 2 else np.eye(2)
  )
  edge = mask & ~ndimage.binary_erosion(mask)
  return [
    len(rows) * spacing**2,
    edge.sum() * spacing,
    edge.sum() / np.sqrt(len(rows)),
    np.ptp(rows) + 1,
    np.ptp(cols) + 1,
    ndimage.distance_transform_edt(mask).max(),
    variances[0] / max(variances[1], 1e-6),
    spacing,
  ]


def nodule(record):
  """Attenuation of the nodule and of shells around its outline."""
  hu = record['image'][..., 0].astype(float)
  mask = record['mask'][..., 0] > 0
  depth = ndimage.distance_transform_edt(mask)
  depth -= ndimage.distance_transform_edt(~mask)
  found = [*np.quantile(hu[mask], (0.05, 0.25, 0.5, 0.75, 0.95)), hu.max()]
  for shell in _SHELLS:
    part = hu[np.rint(depth) == shell]
    found += [part.mean(), part.std()] if part.size else [-2000, -2000]
  slope = np.hypot(*np.gradient(hu))
  found.append(slope[abs(depth) <= 1].mean())
  ring = hu[(depth <= -3) & (depth >= -5)]  # spicules are bright in it
  found += [*np.quantile(ring, (0.5, 0.75, 0.9)), (ring > -700).mean()]
  return found


def background(record):
  """Attenuation far from the nodule, which must not depend on the label."""
  image = record['image'][..., 0]
  hu = image.astype(float)
  mask = record['mask'][..., 0] > 0
  far = ndimage.distance_transform_edt(~mask) > _FAR_PX
  lung = far & (hu < -750)
  if lung.sum() < 100:
    lung = far
  # Noise is the high-pass part of the quietest regions of the lung, as fine
  # vessels dominate elsewhere.
  noise = hu - ndimage.gaussian_filter(hu, 2)
  power = ndimage.uniform_filter(noise**2, 7)
  quiet = lung & (power <= np.quantile(power[lung], 0.1))
  var = (noise[quiet] ** 2).mean() + 1e-6
  along = (noise * np.roll(noise, 1, axis=1))[quiet].mean() / var
  down = (noise * np.roll(noise, 1, axis=0))[quiet].mean() / var
  border = np.concatenate([hu[0], hu[:, -1], hu[-1], hu[:, 0]])
  return [
    np.median(hu[lung]),
    np.sqrt(var),
    along,
    down,
    (image & 1).mean(),
    *np.quantile(hu[far], (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)),
    (hu[far] > -700).mean(),  # share of vessels and wall
    ((hu[far] > -700) & (hu[far] < -300)).mean(),
    hu.min(),
    *(side.mean() for side in np.split(border, 8)),
    (border > -300).mean(),
  ]


def bookkeeping(record):
  """Position in the file, and the id, from which seeds may be derived."""
  digest = hashlib.sha256(record['nodule_id']).digest()
  return [record['position'], len(record['nodule_id']), *digest[:8]]


def out_of_fold(features, target, folds, *, num_trees=200, seed=0):
  """Predicts each fold by a forest trained on the other folds.

  Args:
    features: (n, k).
    target: (n,), labels 0 and 1, or real numbers.
    folds: (n,); all nodules of a patient are in one fold.
    num_trees: number of trees of each forest.
    seed: seed of each forest.

  Returns:
    (n,), the probability of label 1, or the predicted number.
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
  """Computes a bootstrap interval of a statistic, resampling patients.

  Args:
    statistic: function of the resampled arrays.
    patients: (n,), the patient of each nodule.
    *arrays: arrays of shape (n,).
    level: share of the resampled statistics inside the interval.
    num: number of resamplings.

  Returns:
    (low, high).
  """
  rng = np.random.default_rng(0)
  _, inverse = np.unique(patients, return_inverse=True)
  members = [np.flatnonzero(inverse == i) for i in range(inverse.max() + 1)]
  values = []
  for _ in range(num):
    drawn = rng.integers(len(members), size=len(members))
    sample = np.concatenate([members[i] for i in drawn])
    values.append(statistic(*(x[sample] for x in arrays)))
  tail = (1 - level) / 2
  return tuple(np.quantile(values, (tail, 1 - tail)))
