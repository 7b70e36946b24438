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

_COUNTS = ('overlap', 'predicted', 'truth', 'pixels')


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
  patients = [record['patient_id'] for record in records]
  weights = bootstrap.patient_weights(patients, seed=seed)
  labels = records_lib.column(records, 'label')
  return {
    'nodules': len(records),
    'labelled': int((labels >= 0).sum()),
    'malignant': int((labels == 1).sum()),
    'patients': len(set(patients)),
    'segmentation': _segmentation(records, weights),
    **_classification(records, diameter_model, weights, seed),
    'readers': _readers(records, weights),
  }


def of_output(records, output, weights):
  """Metrics of one output.

  Args:
    records: of `records.make_records`.
    output: of `outputs_of`.
    weights: of `bootstrap.patient_weights`.

  Returns:
    metric -> (value, replicates or None).
  """
  if output == 'class':
    labels = records_lib.column(records, 'label')
    known = labels >= 0
    return replicated(
      classification,
      records_lib.column(records, 'malignancy_probability')[known],
      labels[known],
      None if weights is None else weights[:, known],
    )
  return {
    metric: bootstrap.replicated_mean(
      records_lib.column(records, f'{output}_{metric}'), weights
    )
    for metric in metrics.SEGMENTATION
  }


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
  if records and 'malignancy_probability' in records[0]:
    scores['classification'] = records_lib.column(
      records, 'malignancy_probability'
    )
  return {**scores, 'diameter_only': 1 / (1 + np.exp(-logits))}


def _segmentation(records, weights):
  tree = {}
  for name in records_lib.masks_of(records):
    tree[name] = {
      metric: bootstrap.mean(
        records_lib.column(records, f'{name}_{metric}'), weights
      )
      for metric in metrics.SEGMENTATION
    }
    counts = {
      key: records_lib.column(records, f'{name}_{key}') for key in _COUNTS
    }
    tree[name]['pooled'] = _pooled(counts, weights)
  if len(tree) == 2:
    tree['fine_minus_coarse'] = {
      metric: bootstrap.mean(
        records_lib.column(records, f'fine_{metric}')
        - records_lib.column(records, f'coarse_{metric}'),
        weights,
      )
      for metric in metrics.SEGMENTATION
    }
  return tree


def _classification(records, diameter_model, weights, seed):
  labels = records_lib.column(records, 'label')
  known = labels >= 0
  weights = None if weights is None else weights[:, known]
  scores = {
    name: values[known]
    for name, values in malignancy_scores(records, diameter_model).items()
  }
  classified = {
    name: replicated(classification, values, labels[known], weights)
    for name, values in scores.items()
  }
  rated = {
    name: replicated(probability_quality, values, labels[known], weights)
    for name, values in scores.items()
  }
  for values in rated.values():
    value, replicates = values['calibration_error']
    if replicates is not None and np.isfinite(value):
      values['calibration_error'] = (
        value,
        calibration.centred(value, replicates),
      )
  tree = {name: estimates(values) for name, values in classified.items()}
  tree['probabilities'] = {
    name: estimates(values) for name, values in rated.items()
  }
  if 'classification' in scores:
    key = 'classification_minus_diameter_only'
    tree[key] = difference(
      classified['classification'], classified['diameter_only']
    )
    tree['probabilities'][key] = difference(
      rated['classification'], rated['diameter_only']
    )
  replicates = 0 if weights is None else len(weights)
  for name, values in scores.items():
    if replicates and len(values):
      by_chance = calibration.expected_error_if_calibrated(
        values, seed=seed, replicates=replicates
      )
      tree['probabilities'][name]['calibration_error_if_calibrated'] = (
        bootstrap.estimate(by_chance.mean(), by_chance)
      )
  return tree


def classification(scores, labels, weights):
  """`metrics.classification_metrics` with its weights by position."""
  return metrics.classification_metrics(scores, labels, weights=weights)


def probability_quality(scores, labels, weights):
  """How good probabilities are, whatever the threshold.

  Returns:
    'average_precision', 'calibration_error', 'brier': (...) for weights
    (..., N).
  """
  return {
    'average_precision': metrics.average_precision(scores, labels, weights),
    'calibration_error': calibration.expected_error(scores, labels, weights),
    'brier': calibration.brier(scores, labels, weights),
  }


def replicated(metrics_fn, scores, labels, weights):
  """metric -> (value, replicates or None) of a function of weighted nodules."""
  values = metrics_fn(scores, labels, np.ones(len(scores)))
  replicates = {}
  if weights is not None:
    replicates = metrics_fn(scores, labels, weights)
  return {
    metric: (value, replicates.get(metric)) for metric, value in values.items()
  }


def estimates(values):
  """metric -> {'value', 'ci95'}, of what `replicated` returns."""
  return {
    metric: bootstrap.estimate(*value_and_replicates)
    for metric, value_and_replicates in values.items()
  }


def difference(ours, others):
  """Estimates of ours minus others', in the same replicates.

  Args:
    ours, others: of `replicated`, for the same nodules and weights.
  """
  tree = {}
  for metric, (value, replicates) in ours.items():
    other, other_replicates = others[metric]
    tree[metric] = bootstrap.estimate(
      value - other,
      None if replicates is None else replicates - other_replicates,
    )
  return tree


def _readers(records, weights):
  """The readers' agreement with each other and with the networks."""
  agreement = records_lib.column(records, 'reader_dice')
  known = np.isfinite(agreement)
  patients = {
    record['patient_id']
    for record, used in zip(records, known, strict=True)
    if used
  }
  tree = {'nodules': int(known.sum()), 'patients': len(patients)}
  if not known.any():
    return tree
  if len(patients) < 2:
    weights = None
  tree['with_each_other'] = bootstrap.mean(agreement, weights)
  for name in ('consensus', *records_lib.masks_of(records)):
    dice = records_lib.column(records, f'{name}_reader_dice')
    tree[name] = bootstrap.mean(dice, weights)
    tree[f'{name}_minus_with_each_other'] = bootstrap.mean(
      dice - agreement, weights
    )
  return tree


def _pooled(counts, weights):
  """Equations (7)-(11) over all pixels of all nodules together."""
  values = metrics.segmentation_from_counts(
    {key: x.sum() for key, x in counts.items()}
  )
  replicates = {}
  if weights is not None:
    replicates = metrics.segmentation_from_counts(
      {key: weights @ x for key, x in counts.items()}
    )
  return {
    metric: bootstrap.estimate(value, replicates.get(metric))
    for metric, value in values.items()
  }


def score(config, nodules, outputs, *, diameter_model, more=None):
  """Records and metrics of a dataset.

  Args:
    config: the run's config.
    nodules: `nodules.Nodules`.
    outputs: of `predict`, for the same nodules.
    diameter_model: of `scores.fit_diameter_only`.
    more: as in `make_records`.

  Returns:
    records, and the tree of `scores.summarise`.
  """
  records = records_lib.make_records(nodules, outputs, more)
  summary = summarise(records, diameter_model=diameter_model, seed=config.seed)
  return records, summary
