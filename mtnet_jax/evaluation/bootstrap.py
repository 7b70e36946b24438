"""Computes 95 % intervals by resampling patients.

Nodules of one patient are alike, so whole patients are drawn with replacement
(Field & Welsh, 2007); resampling nodules would make the intervals too narrow.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtnet_jax import metrics

REPLICATES = 1000


def patient_weights(
  patients: npt.ArrayLike, *, seed: int = 0, replicates: int = REPLICATES
) -> np.ndarray | None:
  """Draws how often each nodule counts in each replicate.

  Args:
    patients: (N,) patient of each nodule.
    seed: seed of the resampling.
    replicates: number of replicates, R.

  Returns:
    (R, N) integers; None for fewer than two patients, since one patient allows
    no statement about others.
  """
  names, patient_of = np.unique(np.asarray(patients), return_inverse=True)
  if len(names) < 2:
    return None
  rng = np.random.default_rng(seed)
  share = np.full(len(names), 1 / len(names))
  return rng.multinomial(len(names), share, size=replicates)[:, patient_of]


def interval(values: npt.ArrayLike) -> list[float] | None:
  """Returns the [2.5 %, 97.5 %] quantiles of (R,) replicates without NaN.

  None if no replicate is finite.
  """
  replicates = np.asarray(values, np.float64)
  replicates = replicates[np.isfinite(replicates)]
  if not replicates.size:
    return None
  return [float(q) for q in np.quantile(replicates, (0.025, 0.975))]


def estimate(
  value: float, replicate_values: npt.ArrayLike | None
) -> dict[str, Any]:
  """Returns {'value': x, 'ci95': [low, high]}, with None for undefined ones.

  Args:
    value: the value.
    replicate_values: (R,) replicates of the value, if there are any.
  """
  return {
    'value': float(value) if np.isfinite(value) else None,
    'ci95': None if replicate_values is None else interval(replicate_values),
  }


def replicated(
  metrics_fn: Callable[[np.ndarray], Mapping[str, Any]],
  weights: np.ndarray | None,
  num_nodules: int,
) -> dict[str, tuple[Any, np.ndarray | None]]:
  """Computes metrics of nodules, and their replicates.

  Args:
    metrics_fn: maps weights (..., N) to metric -> (...).
    weights: (R, N) from `patient_weights`.
    num_nodules: number of nodules, N.

  Returns:
    metric -> (value, (R,) replicates or None).
  """
  values = metrics_fn(np.ones(num_nodules))
  replicates: Mapping[str, Any] = {} if weights is None else metrics_fn(weights)
  return {
    metric: (value, replicates.get(metric)) for metric, value in values.items()
  }


def mean(values: npt.ArrayLike, weights: np.ndarray | None) -> dict[str, Any]:
  """Returns the `estimate` of the mean over nodules, without NaN.

  Args:
    values: (N,) values.
    weights: (R, N) from `patient_weights`.
  """
  return estimate(*replicated_mean(values, weights))


def replicated_mean(
  values: npt.ArrayLike, weights: np.ndarray | None
) -> tuple[float, np.ndarray | None]:
  """Returns the mean over nodules, without NaN, and its (R,) replicates.

  The replicates are None if `weights` is None or no value is finite.

  Args:
    values: (N,) values.
    weights: (R, N) from `patient_weights`.
  """
  values = np.asarray(values, np.float64)
  known = np.isfinite(values)
  if not known.any():
    return np.nan, None
  if weights is None:
    return values[known].mean(), None
  totals = weights[:, known].sum(1)
  sums = weights[:, known] @ values[known]
  return values[known].mean(), metrics.ratio(sums, totals)
