"""From the records of a test set to its metrics, with intervals.

Metrics are means over nodules with 95 % intervals from resampling patients;
the values over the pooled pixels stand beside them.
"""

import numpy as np
from sklearn import linear_model

from mtnet_jax import metrics
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import calibration
from mtnet_jax.evaluation import records as records_lib


def fit_diameter_only(nodules):
  """Logistic regression on the readers' diameter: the baseline to beat.

  Args:
    nodules: the training split.

  Returns:
    {'slope', 'intercept'} of the logit against the diameter in mm.
  """
  nodules = nodules.labelled()
  model = linear_model.LogisticRegression().fit(
    nodules.info['diameter_mm'][:, None], nodules.label
  )
  return {
    'slope': float(model.coef_[0, 0]),
    'intercept': float(model.intercept_[0]),
  }


def summarise(records, *, diameter_model, seed):
  """Metrics of a test set from its records.

  Args:
    records: of `records.make_records`. Networks that a run does not have, have
      no columns there and no part in the tree.
    diameter_model: of `fit_diameter_only`.
    seed: of the resampling.

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


def of_output(records, output, weights):
  """Metrics of one output.

  Args:
    records: of `records.make_records`.
    output: of `outputs_of`.
    weights: of `records.patient_weights`.

  Returns:
    metric -> (value, replicates or None).
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


def _of_probabilities(metrics_fn, probabilities, labels, weights):
  """As `of_output`, of a function of the nodules that have a label."""
  known = labels >= 0
  return bootstrap.replicated(
    lambda weights: metrics_fn(
      probabilities[known], labels[known], weights=weights[..., known]
    ),
    weights,
    len(labels),
  )


def malignancy_scores(records, diameter_model):
  """Probabilities of malignancy, of all records.

  Returns:
    'classification' (where the run has a classifier) and 'diameter_only' ->
    (N,).
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


def probability_quality(scores, labels, weights):
  """How good probabilities are at any threshold.

  Returns:
    'average_precision', 'calibration_error', 'brier': (...) for weights
    (..., N).
  """
  return {
    'average_precision': metrics.average_precision(scores, labels, weights),
    'calibration_error': calibration.expected_error(scores, labels, weights),
    'brier': calibration.brier(scores, labels, weights),
  }


def estimates(values):
  """metric -> {'value', 'ci95'}, of what `of_output` returns."""
  return {
    metric: bootstrap.estimate(*value_and_replicates)
    for metric, value_and_replicates in values.items()
  }


def difference(values, others):
  """Estimates of values minus others, of the same number of replicates.

  Args:
    values, others: of `of_output`; paired if the weights were the same.
  """
  tree = {}
  for metric, (value, replicates) in values.items():
    other, other_replicates = others[metric]
    known = replicates is not None and other_replicates is not None
    tree[metric] = bootstrap.estimate(
      value - other, replicates - other_replicates if known else None
    )
  return tree


def mask_difference(masks, others, weights):
  """Estimates of the mean over nodules of one mask's metrics minus another's.

  Args:
    masks, others: (records, 'coarse' or 'fine'), of the same nodules.
    weights: of `records.patient_weights`.
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
  """The readers' agreement with each other and with the networks."""
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
  """Equations (7)-(11) over all pixels of all nodules together."""
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


def score(config, nodules, outputs, *, diameter_model, more=None):
  """Records and metrics of a dataset.

  Args:
    config: the run's config.
    nodules: `nodules.Nodules`.
    outputs: of `outputs.predict`, for the same nodules.
    diameter_model: of `scores.fit_diameter_only`.
    more: as in `make_records`.

  Returns:
    records, and the tree of `scores.summarise`.
  """
  records = records_lib.make_records(nodules, outputs, more)
  summary = summarise(records, diameter_model=diameter_model, seed=config.seed)
  return records, summary
