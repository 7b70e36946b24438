"""Measures and corrects the calibration of malignancy probabilities.

There are ten bins of equal width from 0 to 1, as in scikit-learn's
`calibration_curve`.
"""

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy import special

from mtnet_jax import metrics

NUM_BINS = 10


def bin_of(scores: npt.ArrayLike) -> np.ndarray:
  """Returns the (N,) bins of probabilities; an edge is in the bin below it."""
  edges = np.linspace(0, 1, NUM_BINS + 1)[1:-1]
  return np.searchsorted(edges, np.asarray(scores, np.float64))


def curve(
  scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Computes the mean probability and the malignant share in each bin.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 and 1.
    weights: (..., N) how often each nodule counts.

  Returns:
    Mean probability, malignant share (both NaN in an empty bin), and total
    weight: (..., NUM_BINS) each.
  """
  scores = np.asarray(scores, np.float64)
  weights = np.asarray(weights, np.float64)
  member = np.eye(NUM_BINS)[bin_of(scores)]
  total = weights @ member
  filled = np.where(total > 0, total, np.nan)
  predicted = (weights * scores) @ member / filled
  observed = (weights * np.asarray(labels)) @ member / filled
  return predicted, observed, total


def expected_error(
  scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike
) -> np.ndarray:
  """Computes the expected calibration error of the positive class.

  It is the sum over bins of |observed - predicted|, weighted by the bin's share
  of all nodules (Naeini et al., AAAI 2015).

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 and 1.
    weights: (..., N) how often each nodule counts.

  Returns:
    (...); NaN if the total weight is 0.
  """
  predicted, observed, total = curve(scores, labels, weights)
  gaps = np.where(total > 0, np.abs(observed - predicted), 0.0)
  return metrics.ratio(np.sum(gaps * total, axis=-1), np.sum(total, axis=-1))


def brier(
  scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike
) -> np.ndarray:
  """Computes the Brier score (Brier, 1950).

  It is the mean squared difference of probability and label.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 and 1.
    weights: (..., N) how often each nodule counts.

  Returns:
    (...); NaN if the total weight is 0.
  """
  errors = (np.asarray(scores, np.float64) - np.asarray(labels)) ** 2
  weights = np.asarray(weights, np.float64)
  return metrics.ratio(
    np.sum(errors * weights, axis=-1), np.sum(weights, axis=-1)
  )


def expected_error_if_calibrated(
  scores: npt.ArrayLike, *, seed: int, replicates: int
) -> np.ndarray:
  """Simulates the expected error of perfectly calibrated probabilities.

  It is above 0: with few nodules in a bin, the malignant share deviates by
  chance.

  Args:
    scores: (N,) probabilities.
    seed: seed of the labels drawn.
    replicates: how often labels are drawn with these probabilities.

  Returns:
    (replicates,) errors.
  """
  scores = np.asarray(scores, np.float64)
  uniform = np.random.default_rng(seed).random((replicates, len(scores)))
  labels = (uniform < scores).astype(np.float64)
  return np.asarray(
    [expected_error(scores, row, np.ones(len(scores))) for row in labels]
  )


def fit_temperature(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
  """Fits the temperature at which probabilities match labels best.

  Logits are divided by it (Guo et al., ICML 2017), which changes neither the
  order of nodules nor a label at the threshold 0.5. Fit it to nodules that were
  not used in training.

  Args:
    scores: (N,) probabilities.
    labels: (N,) of 0 and 1; both must occur.

  Returns:
    The temperature from 0.1 to 10 with the smallest mean negative log
    likelihood.
  """
  logits = special.logit(_inside(scores))
  signs = 2 * np.asarray(labels, np.float64) - 1

  def loss(log_temperature):
    return -np.mean(special.log_expit(signs * logits / 10**log_temperature))

  found = optimize.minimize_scalar(loss, bounds=(-1, 1), method='bounded')
  return float(10**found.x)


def tempered(scores: npt.ArrayLike, temperature: float) -> np.ndarray:
  """Divides the logits of probabilities by a temperature; returns float32."""
  scores = np.asarray(scores, np.float32)
  if temperature == 1:
    return scores
  logits = special.logit(_inside(scores)) / temperature
  return special.expit(logits).astype(np.float32)


def _inside(scores):
  """Clips probabilities to float64 inside (0, 1), where logits are finite."""
  return np.clip(np.asarray(scores, np.float64), 1e-9, 1 - 1e-9)


def centred(value: npt.ArrayLike, replicates: np.ndarray) -> np.ndarray:
  """Shifts replicates of the expected error so that their mean is its value.

  A resample has fewer distinct nodules, so its error is larger on average, and
  the interval of the raw replicates may not contain the value.

  Args:
    value: the error.
    replicates: (R,) errors of resampled nodules.

  Returns:
    (R,) replicates; those that become negative are set to 0.
  """
  return np.maximum(replicates - np.nanmean(replicates) + value, 0.0)
