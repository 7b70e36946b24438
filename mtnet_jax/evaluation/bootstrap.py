"""95 % intervals by resampling patients.

Nodules of one patient are alike, so whole patients are drawn with replacement
(Field & Welsh, 2007); resampling nodules would make the intervals too narrow.
"""

import numpy as np

from mtnet_jax import metrics

REPLICATES = 1000


def patient_weights(patients, *, seed=0, replicates=REPLICATES):
  """How often each nodule counts in each replicate.

  Args:
    patients: (N,) patient of each nodule.
    seed: of the resampling.
    replicates: R.

  Returns:
    (R, N) integers; None where there are fewer than two patients, from which
    nothing can be said about other patients.
  """
  names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
  if len(names) < 2:
    return None
  rng = np.random.default_rng(seed)
  share = np.full(len(names), 1 / len(names))
  return rng.multinomial(len(names), share, size=replicates)[:, patient_of]


def interval(values):
  """[2.5 %, 97.5 %] quantiles of (R,) replicates; None where undefined."""
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  if not values.size:
    return None
  return [float(q) for q in np.quantile(values, (0.025, 0.975))]


def estimate(value, replicate_values):
  """{'value': x, 'ci95': [lo, hi]}, None for what is undefined."""
  return {
    'value': float(value) if np.isfinite(value) else None,
    'ci95': None if replicate_values is None else interval(replicate_values),
  }


def replicated(metrics_fn, weights, num_nodules):
  """Metrics of weighted nodules, and their replicates.

  Args:
    metrics_fn: weights (..., N) -> metric -> (...).
    weights: of `patient_weights`.
    num_nodules: N.

  Returns:
    metric -> (value, (R,) replicates or None).
  """
  values = metrics_fn(np.ones(num_nodules))
  replicates = {} if weights is None else metrics_fn(weights)
  return {
    metric: (value, replicates.get(metric)) for metric, value in values.items()
  }


def mean(values, weights):
  """Estimate of the mean over nodules, NaN left out.

  Args:
    values: (N,).
    weights: of `patient_weights`.
  """
  return estimate(*replicated_mean(values, weights))


def replicated_mean(values, weights):
  """The mean of `mean`, and its (R,) replicates; None where there are none."""
  values = np.asarray(values, np.float64)
  known = np.isfinite(values)
  if not known.any():
    return np.nan, None
  if weights is None:
    return values[known].mean(), None
  totals = weights[:, known].sum(1)
  sums = weights[:, known] @ values[known]
  return values[known].mean(), metrics.ratio(sums, totals)
