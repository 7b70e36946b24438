"""From the records of a test set to its metrics, with intervals.

Metrics are means over nodules with 95 % intervals from resampling patients;
the values over the pooled pixels stand beside them.
"""

import numpy as np
from sklearn import linear_model

from mtnet_jax import bootstrap
from mtnet_jax import metrics

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
    records: of `make_records`.
    diameter_model: of `fit_diameter_only`.
    seed: of the resampling.

  Returns:
    The tree that metrics.json holds under 'test'.
  """
  weights = bootstrap.patient_weights(
    [record['patient_id'] for record in records], seed=seed
  )

  def column(key):
    return np.asarray([record[key] for record in records], np.float64)

  segmentation = {}
  for name in ('coarse', 'fine'):
    segmentation[name] = {
      metric: bootstrap.mean(column(f'{name}_{metric}'), weights)
      for metric in metrics.SEGMENTATION
    }
    counts = {key: column(f'{name}_{key}') for key in _COUNTS}
    segmentation[name]['pooled'] = _pooled(counts, weights)
  segmentation['fine_minus_coarse'] = {
    metric: bootstrap.mean(
      column(f'fine_{metric}') - column(f'coarse_{metric}'), weights
    )
    for metric in metrics.SEGMENTATION
  }

  labels = column('label')
  known = labels >= 0
  known_weights = None if weights is None else weights[:, known]
  logits = (
    diameter_model['slope'] * column('diameter_mm')
    + diameter_model['intercept']
  )
  scores = {
    'classification': column('malignancy_probability')[known],
    'diameter_only': (1 / (1 + np.exp(-logits)))[known],
  }
  classified = {
    name: _classified(values, labels[known], known_weights)
    for name, values in scores.items()
  }
  difference = {
    metric: bootstrap.estimate(
      classified['classification'][metric][0]
      - classified['diameter_only'][metric][0],
      None
      if weights is None
      else np.asarray(classified['classification'][metric][1])
      - np.asarray(classified['diameter_only'][metric][1]),
    )
    for metric in metrics.CLASSIFICATION
  }
  return {
    'nodules': len(records),
    'labelled': int(known.sum()),
    'malignant': int((labels == 1).sum()),
    'patients': len({record['patient_id'] for record in records}),
    'segmentation': segmentation,
    **{
      name: {
        metric: bootstrap.estimate(*values)
        for metric, values in by_metric.items()
      }
      for name, by_metric in classified.items()
    },
    'classification_minus_diameter_only': difference,
  }


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


def _classified(scores, labels, weights):
  """metric -> (value, replicates or None)."""
  values = metrics.classification_metrics(scores, labels)
  replicates = None
  if weights is not None:
    replicates = [
      metrics.classification_metrics(scores, labels, weights=row)
      for row in weights
    ]
  return {
    metric: (
      value,
      None if replicates is None else [row[metric] for row in replicates],
    )
    for metric, value in values.items()
  }
