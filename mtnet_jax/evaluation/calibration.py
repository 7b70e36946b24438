"""Whether a probability of malignancy means what it says.

Bins: ten of equal width from 0 to 1, as in scikit-learn's `calibration_curve`.
"""

import numpy as np
from scipy import optimize
from scipy import special

from mtnet_jax import metrics

NUM_BINS = 10


def bin_of(scores):
  """(N,) index of the bin of each probability; an edge belongs below it."""
  edges = np.linspace(0, 1, NUM_BINS + 1)[1:-1]
  return np.searchsorted(edges, np.asarray(scores, np.float64))


def curve(scores, labels, weights):
  """Mean probability and share of malignant nodules in each bin.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 and 1.
    weights: (..., N) how often each nodule counts.

  Returns:
    mean probability, share malignant (both NaN in an empty bin), and weight:
    (..., NUM_BINS) each.
  """
  scores = np.asarray(scores, np.float64)
  weights = np.asarray(weights, np.float64)
  member = np.eye(NUM_BINS)[bin_of(scores)]
  total = weights @ member
  filled = np.where(total > 0, total, np.nan)
  predicted = (weights * scores) @ member / filled
  observed = (weights * np.asarray(labels)) @ member / filled
  return predicted, observed, total


def expected_error(scores, labels, weights):
  """Expected calibration error: sum over bins of share |observed - predicted|.

  (Naeini et al., AAAI 2015, of the probability of the positive class.)

  Args:
    scores, labels, weights: as in `curve`.

  Returns:
    (...); NaN where nothing counts.
  """
  predicted, observed, total = curve(scores, labels, weights)
  gaps = np.where(total > 0, np.abs(observed - predicted), 0.0)
  return metrics.ratio(np.sum(gaps * total, axis=-1), np.sum(total, axis=-1))


def brier(scores, labels, weights):
  """Mean squared difference of probability and label (Brier, 1950).

  Args:
    scores, labels, weights: as in `curve`.

  Returns:
    (...); NaN where nothing counts.
  """
  errors = (np.asarray(scores, np.float64) - np.asarray(labels)) ** 2
  weights = np.asarray(weights, np.float64)
  return metrics.ratio(
    np.sum(errors * weights, axis=-1), np.sum(weights, axis=-1)
  )


def expected_error_if_calibrated(scores, *, seed, replicates):
  """The error that perfectly calibrated probabilities would show here.

  It is never 0: of few nodules in a bin the malignant share is off by chance.

  Args:
    scores: (N,) probabilities.
    seed: of the labels drawn.
    replicates: how many times labels are drawn with these probabilities.

  Returns:
    (replicates,) errors.
  """
  scores = np.asarray(scores, np.float64)
  uniform = np.random.default_rng(seed).random((replicates, len(scores)))
  labels = (uniform < scores).astype(np.float64)
  return np.asarray(
    [expected_error(scores, row, np.ones(len(scores))) for row in labels]
  )


def fit_temperature(scores, labels):
  """The temperature at which probabilities fit labels best.

  Logits are divided by it (Guo et al., ICML 2017), which changes no order and
  no label at 0.5. Fit it to nodules that trained nothing.

  Args:
    scores: (N,) probabilities.
    labels: (N,) of 0 and 1, of both.

  Returns:
    A temperature from 0.1 to 10, of the least mean negative log likelihood.
  """
  logits = special.logit(_inside(scores))
  signs = 2 * np.asarray(labels, np.float64) - 1

  def loss(log_temperature):
    return -np.mean(special.log_expit(signs * logits / 10**log_temperature))

  found = optimize.minimize_scalar(loss, bounds=(-1, 1), method='bounded')
  return float(10**found.x)


def tempered(scores, temperature):
  """Probabilities whose logits are divided by a temperature, float32."""
  scores = np.asarray(scores, np.float32)
  if temperature == 1:
    return scores
  logits = special.logit(_inside(scores)) / temperature
  return special.expit(logits).astype(np.float32)


def _inside(scores):
  """Probabilities as float64 that have a logit: not 0, not 1."""
  return np.clip(np.asarray(scores, np.float64), 1e-9, 1 - 1e-9)


def centred(value, replicates):
  """Replicates of the expected error without the chance that they add.

  Resampled nodules are fewer different ones, so that the error of a resample
  is larger on average; an interval of the raw ones may leave the value out.

  Args:
    value: the error.
    replicates: (R,) of resampled nodules.

  Returns:
    (R,), of mean `value`, except that negative ones are 0.
  """
  return np.maximum(replicates - np.nanmean(replicates) + value, 0.0)
