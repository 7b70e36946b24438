"""Computes the metrics of a test set, with intervals, from its records.

Metrics are means over nodules with 95 % intervals from resampling patients.
Under 'pooled' there are also the metrics over the pixels of all nodules.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
import numpy.typing as npt

from mtnet_jax import metrics
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import calibration
from mtnet_jax.evaluation import records as records_lib


def fit_diameter_only(nodules: nodules_lib.Nodules) -> dict[str, float]:
  """Fits a logistic regression on the readers' diameter: the baseline to beat.

  Args:
    nodules: the training split.

  Returns:
    {'slope', 'intercept'} of the logit as a function of the diameter in mm.
  """
  # Its import takes seconds, which an error of a config should not.
  from sklearn import linear_model

  nodules = nodules.labelled()
  model = linear_model.LogisticRegression().fit(
    nodules.info['diameter_mm'][:, None], nodules.label
  )
  return {
    'slope': float(model.coef_[0, 0]),
    'intercept': float(model.intercept_[0]),
  }


def summarise(
  records: Sequence[Mapping[str, Any]],
  *,
  diameter_model: Mapping[str, float],
  seed: int,
) -> dict[str, Any]:
  """Computes the metrics of a test set from its records.

  Args:
    records: from `records.make_records`. Outputs without columns there have no
      entries in the result.
    diameter_model: from `fit_diameter_only`.
    seed: seed of the resampling.

  Returns:
    The tree that metrics.json holds under 'test'.
  """
  weights = records_lib.patient_weights(records, seed=seed)
  return {
    **records_lib.count(records),
    'segmentation': _segmentation(records, weights),
    **_classification(records, diameter_model, weights, seed),
    'readers': _readers(records, weights),
  }


def of_output(
  records: Sequence[Mapping[str, Any]],
  output: str,
  weights: np.ndarray | None,
) -> dict[str, tuple[Any, np.ndarray | None]]:
  """Computes the metrics of one output.

  Args:
    records: from `records.make_records`.
    output: one of `records.outputs_of`.
    weights: (R, N) from `records.patient_weights`.

  Returns:
    metric -> (value, (R,) replicates or None).
  """
  if output == 'class':
    return _of_probabilities(
      metrics.classification_metrics,
      records_lib.column(records, 'malignancy_probability'),
      records_lib.column(records, 'label'),
      weights,
    )
  return {
    metric: bootstrap.replicated_mean(
      records_lib.column(records, f'{output}_{metric}'), weights
    )
    for metric in metrics.SEGMENTATION
  }


def _of_probabilities(
  metrics_fn: Callable[..., Mapping[str, Any]],
  probabilities: np.ndarray,
  labels: np.ndarray,
  weights: np.ndarray | None,
) -> dict[str, tuple[Any, np.ndarray | None]]:
  """Returns metrics of the labelled nodules, in the form of `of_output`."""
  known = labels >= 0
  return bootstrap.replicated(
    lambda weights: metrics_fn(
      probabilities[known], labels[known], weights=weights[..., known]
    ),
    weights,
    len(labels),
  )


def malignancy_scores(
  records: Sequence[Mapping[str, Any]], diameter_model: Mapping[str, float]
) -> dict[str, np.ndarray]:
  """Returns the probabilities of malignancy of all records.

  Args:
    records: from `records.make_records`.
    diameter_model: from `fit_diameter_only`.

  Returns:
    'classification' (if the run has a classifier) and 'diameter_only' -> (N,).
  """
  logits = (
    diameter_model['slope'] * records_lib.column(records, 'diameter_mm')
    + diameter_model['intercept']
  )
  scores = {}
  if 'class' in records_lib.outputs_of(records):
    scores['classification'] = records_lib.column(
      records, 'malignancy_probability'
    )
  return {**scores, 'diameter_only': 1 / (1 + np.exp(-logits))}


def _segmentation(records, weights):
  tree = {
    name: {
      **estimates(of_output(records, name, weights)),
      'pooled': _pooled(records, name, weights),
    }
    for name in records_lib.masks_of(records)
  }
  if len(tree) == 2:
    tree['fine_minus_coarse'] = mask_difference(
      (records, 'fine'), (records, 'coarse'), weights
    )
  return tree


def _classification(records, diameter_model, weights, seed):
  labels = records_lib.column(records, 'label')
  scores = malignancy_scores(records, diameter_model)
  classified, rated = (
    {
      name: _of_probabilities(metrics_fn, values, labels, weights)
      for name, values in scores.items()
    }
    for metrics_fn in (metrics.classification_metrics, probability_quality)
  )
  for values in rated.values():
    value, replicates = values['calibration_error']
    if replicates is not None and np.isfinite(value):
      values['calibration_error'] = (
        value,
        calibration.centred(value, replicates),
      )
  tree, probabilities = (
    {name: estimates(values) for name, values in measured.items()}
    for measured in (classified, rated)
  )
  tree['probabilities'] = probabilities
  if 'classification' in scores:
    for branch, measured in ((tree, classified), (probabilities, rated)):
      branch['classification_minus_diameter_only'] = difference(
        measured['classification'], measured['diameter_only']
      )
  known = labels >= 0
  if weights is not None and known.any():
    for name, values in scores.items():
      by_chance = calibration.expected_error_if_calibrated(
        values[known], seed=seed, replicates=len(weights)
      )
      probabilities[name]['calibration_error_if_calibrated'] = (
        bootstrap.estimate(by_chance.mean(), by_chance)
      )
  return tree


def probability_quality(
  scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike
) -> dict[str, np.ndarray]:
  """Computes metrics of probabilities that need no threshold.

  Args:
    scores: (N,) probabilities of malignancy.
    labels: (N,) of 0 and 1.
    weights: (..., N) how often each nodule counts.

  Returns:
    'average_precision', 'calibration_error' and 'brier', (...) each.
  """
  return {
    'average_precision': metrics.average_precision(scores, labels, weights),
    'calibration_error': calibration.expected_error(scores, labels, weights),
    'brier': calibration.brier(scores, labels, weights),
  }


def estimates(
  values: Mapping[str, tuple[Any, np.ndarray | None]],
) -> dict[str, Any]:
  """Turns the result of `of_output` into metric -> {'value', 'ci95'}."""
  return {
    metric: bootstrap.estimate(*value_and_replicates)
    for metric, value_and_replicates in values.items()
  }


def difference(
  values: Mapping[str, tuple[Any, np.ndarray | None]],
  others: Mapping[str, tuple[Any, np.ndarray | None]],
) -> dict[str, Any]:
  """Returns metric -> {'value', 'ci95'} of values minus others.

  The difference is paired if both were computed with the same weights.

  Args:
    values: from `of_output`.
    others: from `of_output`, with the same number of replicates.
  """
  tree = {}
  for metric, (value, replicates) in values.items():
    other, other_replicates = others[metric]
    if replicates is None or other_replicates is None:
      tree[metric] = bootstrap.estimate(value - other, None)
    else:
      tree[metric] = bootstrap.estimate(
        value - other, replicates - other_replicates
      )
  return tree


def mask_difference(
  masks: tuple[Sequence[Mapping[str, Any]], str],
  others: tuple[Sequence[Mapping[str, Any]], str],
  weights: np.ndarray | None,
) -> dict[str, Any]:
  """Returns metric -> {'value', 'ci95'} of one mask minus another.

  The metrics are subtracted nodule by nodule, and then averaged.

  Args:
    masks: (records, 'coarse' or 'fine').
    others: the same, of the same nodules.
    weights: (R, N) from `records.patient_weights`.
  """
  (records, name), (other_records, other_name) = masks, others
  return {
    metric: bootstrap.mean(
      records_lib.column(records, f'{name}_{metric}')
      - records_lib.column(other_records, f'{other_name}_{metric}'),
      weights,
    )
    for metric in metrics.SEGMENTATION
  }


def _readers(records, weights):
  """Returns the readers' agreement with each other and with the networks."""
  agreement = records_lib.column(records, 'reader_dice')
  known = np.isfinite(agreement)
  counts = records_lib.count(records_lib.select(records, known))
  tree = {key: counts[key] for key in ('nodules', 'patients')}
  if not known.any():
    return tree
  if tree['patients'] < 2:
    weights = None
  tree['with_each_other'] = bootstrap.mean(agreement, weights)
  for name in ('consensus', *records_lib.masks_of(records)):
    dice = records_lib.column(records, f'{name}_reader_dice')
    tree[name] = bootstrap.mean(dice, weights)
    tree[f'{name}_minus_with_each_other'] = bootstrap.mean(
      dice - agreement, weights
    )
  return tree


def _pooled(records, name, weights):
  """Returns equations (7)-(11) over the pixels of all nodules together."""
  counts = {
    key: records_lib.column(records, f'{name}_{key}') for key in metrics.COUNTS
  }
  return estimates(
    bootstrap.replicated(
      lambda weights: metrics.segmentation_from_counts(
        {key: weights @ count for key, count in counts.items()}
      ),
      weights,
      len(records),
    )
  )


def score(
  config: ml_collections.ConfigDict,
  nodules: nodules_lib.Nodules,
  outputs: Mapping[str, np.ndarray],
  *,
  diameter_model: Mapping[str, float],
  more: Mapping[str, np.ndarray] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
  """Computes the records and metrics of a dataset.

  Args:
    config: config of the run.
    nodules: the dataset.
    outputs: from `outputs.predict`, for the same nodules.
    diameter_model: from `fit_diameter_only`.
    more: as in `records.make_records`.

  Returns:
    The records, and their metrics as in `summarise`.
  """
  records = records_lib.make_records(nodules, outputs, more)
  summary = summarise(records, diameter_model=diameter_model, seed=config.seed)
  return records, summary
