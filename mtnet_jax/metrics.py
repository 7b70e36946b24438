"""Metrics of segmentation and classification (paper, section 4.1).

If prediction and truth are both empty, Dice and Jaccard are 1: there was
nothing to find, and nothing was found. If only one of them is empty, they are
0. Recall of an empty truth and specificity without background have a
denominator of 0: they are NaN, and means leave them out.
"""

from __future__ import annotations  # for pydoc, which spells ArrayLike out

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import typing as npt

# Probability from which a pixel counts as nodule, and a nodule as malignant.
THRESHOLD = 0.5
LABELS = {0: 'benign', 1: 'malignant', -1: 'open'}

SEGMENTATION = ('dice', 'jaccard', 'accuracy', 'recall', 'specificity')
CLASSIFICATION = ('accuracy', 'auc', 'sensitivity', 'specificity')
# Numbers of pixels that determine every metric of segmentation.
COUNTS = ('overlap', 'predicted', 'truth', 'pixels')


def pixel_counts(
  pred: npt.ArrayLike, truth: npt.ArrayLike
) -> dict[str, np.ndarray]:
  """Counts the pixels that determine every metric of segmentation.

  Args:
    pred: (B, H, W, 1) of 0 and 1.
    truth: (B, H, W, 1) of 0 and 1.

  Returns:
    A dict of (B,) int64: `overlap`, `predicted`, `truth`, `pixels`.

  Raises:
    ValueError: the shapes differ.
  """
  pred, truth = np.asarray(pred) > 0.5, np.asarray(truth) > 0.5
  if pred.shape != truth.shape:
    raise ValueError(
      f'pred {pred.shape} and truth {truth.shape} must have the same shape.'
    )
  axes = tuple(range(1, pred.ndim))
  return {
    'overlap': np.sum(pred & truth, axes),
    'predicted': np.sum(pred, axes),
    'truth': np.sum(truth, axes),
    'pixels': np.full(len(pred), np.prod(pred.shape[1:], dtype=np.int64)),
  }


def segmentation_from_counts(
  counts: Mapping[str, npt.ArrayLike],
) -> dict[str, np.ndarray]:
  """Computes equations (7)-(11) from pixel counts.

  Args:
    counts: `COUNTS`, as from `pixel_counts`, or sums of them; of any shape.

  Returns:
    The metrics in `SEGMENTATION`, of that shape. The module's docstring says
    what they are for empty masks.
  """
  overlap, predicted, truth, pixels = (
    np.asarray(counts[key], np.float64) for key in COUNTS
  )
  union = predicted + truth - overlap
  return {
    'dice': ratio(2 * overlap, predicted + truth, 1.0),
    'jaccard': ratio(overlap, union, 1.0),
    'accuracy': (pixels - union + overlap) / pixels,
    'recall': ratio(overlap, truth),
    'specificity': ratio(pixels - union, pixels - truth),
  }


def segmentation_metrics(
  pred: npt.ArrayLike, truth: npt.ArrayLike
) -> dict[str, np.ndarray]:
  """Computes the metrics of each image, equations (7)-(11).

  Args:
    pred: (B, H, W, 1) of 0 and 1.
    truth: (B, H, W, 1) of 0 and 1.

  Returns:
    The metrics in `SEGMENTATION`, (B,) each. The module's docstring says what
    they are for empty masks.
  """
  return segmentation_from_counts(pixel_counts(pred, truth))


def classification_metrics(
  scores: npt.ArrayLike,
  labels: npt.ArrayLike,
  *,
  threshold: float = THRESHOLD,
  weights: npt.ArrayLike | None = None,
) -> dict[str, Any]:
  """Computes equations (4)-(6) and the area under the ROC curve.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 (benign) and 1 (malignant).
    threshold: scores at or above it count as malignant.
    weights: (..., N), how often each nodule counts; None for once each.

  Returns:
    The metrics in `CLASSIFICATION`, (...) each; NaN where a class is missing.
  """
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
  weights = np.ones(len(scores)) if weights is None else np.asarray(weights)
  correct = (scores >= threshold) == (labels == 1)

  def share_correct(members):
    return ratio(
      weights @ (members & correct).astype(np.float64),
      weights @ members.astype(np.float64),
    )

  malignant, benign = labels == 1, labels == 0
  return {
    'accuracy': share_correct(malignant | benign),
    'auc': area_under_roc(scores, labels, weights),
    'sensitivity': share_correct(malignant),
    'specificity': share_correct(benign),
  }


def area_under_roc(
  scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike
) -> Any:
  """Computes the area under the ROC curve.

  This is the probability that a malignant nodule scores higher than a benign
  one, where a tie counts one half (Mann & Whitney). It equals the area by the
  trapezoidal rule.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 (benign) and 1 (malignant).
    weights: (..., N), how often each nodule counts.

  Returns:
    (...); NaN where a class is missing.
  """
  malignant, benign, _ = weights_by_score(scores, labels, weights)
  # Weight of the benign nodules that score lower, plus half of those that tie.
  below = np.cumsum(benign, axis=-1) - benign / 2
  return ratio(
    np.sum(malignant * below, axis=-1),
    np.sum(malignant, axis=-1) * np.sum(benign, axis=-1),
  )


def average_precision(
  scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike
) -> Any:
  """Averages the precision over thresholds, weighted by the gain in recall.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 (benign) and 1 (malignant).
    weights: (..., N), how often each nodule counts.

  Returns:
    (...); NaN without malignant nodules.
  """
  malignant, benign, _ = weights_by_score(scores, labels, weights)
  # Thresholds go from the highest score down.
  found = np.cumsum(malignant[..., ::-1], axis=-1)
  called = found + np.cumsum(benign[..., ::-1], axis=-1)
  precision = ratio(found, called, 0.0)
  return ratio(
    np.sum(precision * malignant[..., ::-1], axis=-1),
    np.sum(malignant, axis=-1),
  )


def weights_by_score(
  scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Sums the weights of each class over nodules with the same score.

  Args:
    scores: (N,) probabilities of malignancy, of which M are distinct.
    labels: (N,) of 0 (benign) and 1 (malignant).
    weights: (..., N), how often each nodule counts.

  Returns:
    Weights of malignant nodules (..., M), weights of benign nodules (..., M),
    and the distinct scores (M,), ascending.
  """
  labels, weights = np.asarray(labels), np.asarray(weights, np.float64)
  values, position = np.unique(
    np.asarray(scores, np.float64), return_inverse=True
  )
  order = np.argsort(position, kind='stable')
  starts = np.searchsorted(position[order], np.arange(len(values)))

  def weight_of(label):
    counted = (weights * (labels == label))[..., order]
    return np.add.reduceat(counted, starts, axis=-1)

  return weight_of(1), weight_of(0), values


def ratio(
  numerator: npt.ArrayLike,
  denominator: npt.ArrayLike,
  undefined: float = np.nan,
) -> Any:
  """Divides; returns `undefined` where the denominator is not positive.

  Args:
    numerator: of any shape.
    denominator: of a shape that broadcasts with the numerator's.
    undefined: value of undefined quotients.

  Returns:
    An array, or a NumPy scalar if both are scalars.
  """
  numerator, denominator = np.broadcast_arrays(numerator, denominator)
  return np.divide(
    numerator,
    denominator,
    out=np.full(denominator.shape, undefined),
    where=denominator > 0,
  )[()]  # Turns an array without axes into a scalar.
