"""Metrics of segmentation and classification (paper, section 4.1)."""

import numpy as np

# From which probability on a pixel is nodule, and a nodule malignant.
THRESHOLD = 0.5
LABELS = {0: 'benign', 1: 'malignant', -1: 'open'}

SEGMENTATION = ('dice', 'jaccard', 'accuracy', 'recall', 'specificity')
CLASSIFICATION = ('accuracy', 'auc', 'sensitivity', 'specificity')


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

  Where prediction and truth are both empty, Dice and Jaccard are 1. A recall
  or specificity without a denominator is NaN, to be left out of means.
  """
  overlap, predicted, truth, pixels = (
    np.asarray(counts[key], np.float64)
    for key in ('overlap', 'predicted', 'truth', 'pixels')
  )
  union = predicted + truth - overlap

  def ratio(numerator, denominator, when_empty):
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(
      numerator,
      denominator,
      out=np.full(denominator.shape, when_empty),
      where=denominator > 0,
    )

  return {
    'dice': ratio(2 * overlap, predicted + truth, 1.0),
    'jaccard': ratio(overlap, union, 1.0),
    'accuracy': (pixels - union + overlap) / pixels,
    'recall': ratio(overlap, truth, np.nan),
    'specificity': ratio(pixels - union, pixels - truth, np.nan),
  }


def segmentation_metrics(pred, truth):
  """Metrics per image, equations (7)-(11).

  Args:
    pred, truth: (B, H, W, 1) of 0 and 1.

  Returns:
    'dice', 'jaccard', 'accuracy', 'recall', 'specificity': (B,) each; see
    `segmentation_from_counts` for empty masks.
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
    weights: (N,) how often each nodule counts; None for once.

  Returns:
    'accuracy', 'auc', 'sensitivity', 'specificity': floats; NaN where a class
    is missing.
  """
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
  weights = np.ones(len(scores)) if weights is None else np.asarray(weights)
  called = scores >= threshold
  correct = called == (labels == 1)

  def share_correct(among):
    total = np.sum(weights[among])
    return float(np.sum(weights[among & correct]) / total) if total else np.nan

  malignant, benign = labels == 1, labels == 0
  present = weights > 0
  auc = np.nan
  if np.any(malignant & present) and np.any(benign & present):
    # Takes longer to import than the rest, and prediction needs none of it.
    from sklearn import metrics as sklearn_metrics

    auc = float(
      sklearn_metrics.roc_auc_score(labels, scores, sample_weight=weights)
    )
  return {
    'accuracy': share_correct(malignant | benign),
    'auc': auc,
    'sensitivity': share_correct(malignant),
    'specificity': share_correct(benign),
  }
