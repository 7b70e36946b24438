"""Metrics of segmentation and classification (paper, section 4.1).

Empty masks: where prediction and truth are both empty, Dice and Jaccard are 1
(nothing was to be found, and nothing was); where one of them is, they are 0. A
recall without a truth, and a specificity without background, have no
denominator: they are NaN, and left out of means.
"""

import numpy as np

# From which probability on a pixel is nodule, and a nodule malignant.
THRESHOLD = 0.5
LABELS = {0: 'benign', 1: 'malignant', -1: 'open'}

SEGMENTATION = ('dice', 'jaccard', 'accuracy', 'recall', 'specificity')
CLASSIFICATION = ('accuracy', 'auc', 'sensitivity', 'specificity')
# Of pixels, from which every metric of segmentation follows.
COUNTS = ('overlap', 'predicted', 'truth', 'pixels')


def pixel_counts(pred, truth):
  """Counts of pixels from which every segmentation metric follows.

  Args:
    pred, truth: (B, H, W, 1) of 0 and 1.

  Returns:
    A dict of (B,) int64: `overlap`, `predicted`, `truth`, `pixels`.

  Raises:
    ValueError: the shapes differ.
  """
  pred, truth = np.asarray(pred) > 0.5, np.asarray(truth) > 0.5
  if pred.shape != truth.shape:
    raise ValueError(f'pred {pred.shape} and truth {truth.shape} must agree.')
  axes = tuple(range(1, pred.ndim))
  return {
    'overlap': np.sum(pred & truth, axes),
    'predicted': np.sum(pred, axes),
    'truth': np.sum(truth, axes),
    'pixels': np.full(len(pred), np.prod(pred.shape[1:], dtype=np.int64)),
  }


def segmentation_from_counts(counts):
  """Equations (7)-(11) from the counts of `pixel_counts`.

  Empty masks: as this module says at its top.
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


def segmentation_metrics(pred, truth):
  """Metrics per image, equations (7)-(11).

  Args:
    pred, truth: (B, H, W, 1) of 0 and 1.

  Returns:
    'dice', 'jaccard', 'accuracy', 'recall', 'specificity': (B,) each. Empty
    masks: as this module says at its top.
  """
  return segmentation_from_counts(pixel_counts(pred, truth))


def classification_metrics(
  scores, labels, *, threshold=THRESHOLD, weights=None
):
  """Metrics over nodules, equations (4)-(6), and the area under the ROC.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 (benign) and 1 (malignant).
    threshold: scores at or above it are called malignant.
    weights: (..., N) how often each nodule counts; None for once.

  Returns:
    'accuracy', 'auc', 'sensitivity', 'specificity': (...); NaN where a class
    is missing.
  """
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
  weights = np.ones(len(scores)) if weights is None else np.asarray(weights)
  correct = (scores >= threshold) == (labels == 1)

  def share_correct(among):
    return ratio(
      weights @ (among & correct).astype(np.float64),
      weights @ among.astype(np.float64),
    )

  malignant, benign = labels == 1, labels == 0
  return {
    'accuracy': share_correct(malignant | benign),
    'auc': area_under_roc(scores, labels, weights),
    'sensitivity': share_correct(malignant),
    'specificity': share_correct(benign),
  }


def area_under_roc(scores, labels, weights):
  """How often a malignant nodule has a higher score than a benign one.

  Ties count one half (Mann & Whitney): the area under the trapezoids.

  Args:
    scores, labels: (N,), as in `classification_metrics`.
    weights: (..., N).

  Returns:
    (...); NaN where a class is missing.
  """
  malignant, benign, _ = weights_by_score(scores, labels, weights)
  # Of the benign: those below, and half of those that tie.
  below = np.cumsum(benign, axis=-1) - benign / 2
  return ratio(
    np.sum(malignant * below, axis=-1),
    np.sum(malignant, axis=-1) * np.sum(benign, axis=-1),
  )


def average_precision(scores, labels, weights):
  """Precision at each score, weighted by the sensitivity that it adds.

  Args:
    scores, labels: (N,), as in `classification_metrics`.
    weights: (..., N).

  Returns:
    (...); NaN without malignant nodules.
  """
  malignant, benign, _ = weights_by_score(scores, labels, weights)
  # From the highest score down.
  found = np.cumsum(malignant[..., ::-1], axis=-1)
  called = found + np.cumsum(benign[..., ::-1], axis=-1)
  precision = ratio(found, called, 0.0)
  return ratio(
    np.sum(precision * malignant[..., ::-1], axis=-1),
    np.sum(malignant, axis=-1),
  )


def weights_by_score(scores, labels, weights):
  """Weight of both classes at each of the M scores that occur, ascending.

  Returns:
    malignant (..., M), benign (..., M), scores (M,).
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


def ratio(numerator, denominator, undefined=np.nan):
  """Quotients; `undefined` where nothing is divided by."""
  numerator, denominator = np.broadcast_arrays(numerator, denominator)
  return np.divide(
    numerator,
    denominator,
    out=np.full(denominator.shape, undefined),
    where=denominator > 0,
  )[()]  # A number where there is one set of weights.
