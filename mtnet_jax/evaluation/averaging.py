"""Measures the gain from averaging outputs, and how they disagree on errors.

'single' has the metrics of one run on the patches as they are, or the mean of
these metrics over several runs. 'averaged' has the metrics of the mean
probabilities. Both are computed on the same nodules with the same resampling,
so their difference is paired. Its interval describes the choice of patients; it
does not describe how other runs would differ.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores


def judge(
  singles: Sequence[Sequence[Mapping[str, Any]]],
  records: Sequence[Mapping[str, Any]],
  unseen: np.ndarray,
  *,
  seed: int,
) -> dict[str, Any]:
  """Measures the effect of averaging on nodules that no run has seen.

  Args:
    singles: records of each run alone.
    records: records of the averaged outputs, of the same nodules in the same
      order.
    unseen: (N,) bool, which nodules no run has seen.
    seed: seed of the resampling.

  Returns:
    'nodules' and 'patients', the number of unseen ones. If there are any, also
    the entries of `compare`, and under 'uncertainty' those of `uncertainty`.
  """
  records = records_lib.select(records, unseen)
  counts = records_lib.count(records)
  tree: dict[str, Any] = {key: counts[key] for key in ('nodules', 'patients')}
  if records:
    singles = [records_lib.select(rows, unseen) for rows in singles]
    tree.update(compare(singles, records, seed=seed))
    tree['uncertainty'] = uncertainty(records, seed=seed)
  return tree


def compare(
  singles: Sequence[Sequence[Mapping[str, Any]]],
  averaged: Sequence[Mapping[str, Any]],
  *,
  seed: int,
) -> dict[str, Any]:
  """Compares single and averaged outputs.

  Args:
    singles: records of each run alone.
    averaged: records of the averaged outputs, of the same nodules.
    seed: seed of the resampling.

  Returns:
    'single', 'averaged' and 'averaged_minus_single', each of them
    output -> metric -> {'value', 'ci95'}, for the outputs 'coarse', 'fine' and
    'class' that the records hold.
  """
  weights = records_lib.patient_weights(averaged, seed=seed)
  tree: dict[str, Any] = {
    'single': {},
    'averaged': {},
    'averaged_minus_single': {},
  }
  for output in records_lib.outputs_of(averaged):
    together = scores.of_output(averaged, output, weights)
    single = _mean(
      [scores.of_output(records, output, weights) for records in singles]
    )
    tree['single'][output] = scores.estimates(single)
    tree['averaged'][output] = scores.estimates(together)
    tree['averaged_minus_single'][output] = scores.difference(together, single)
  return tree


def _mean(members):
  """Averages several dicts of metric -> (value, replicates or None)."""
  first = members[0]
  return {
    metric: (
      np.mean([member[metric][0] for member in members]),
      None
      if first[metric][1] is None
      else np.mean([member[metric][1] for member in members], axis=0),
    )
    for metric in first
  }


def uncertainty(
  records: Sequence[Mapping[str, Any]], *, seed: int
) -> dict[str, Any]:
  """Measures whether outputs disagree more where they are wrong.

  Some disagreement is trivial: small nodules have a lower Dice and, consisting
  mostly of edge, more disagreement, and a probability near 0.5 is often wrong
  and varies most. Two signals that need no averaging are therefore measured in
  the same way: the area of the mask, and the nearness of the probability to
  0.5.

  Args:
    records: records of averaged outputs, with the columns of
      `ensemble.disagreement`.
    seed: seed of the resampling.

  Returns:
    For the outputs that the records hold, signal -> {'value', 'ci95'} under

    'rank_correlation_with_fine_dice': for 'fine_uncertainty', which is below 0
      if masks are worse where the outputs disagree more, and for
      'fine_predicted';
    'auc_for_wrong_labels': for 'malignancy_sd' and 'nearness_to_half', the
      probability that a misclassified nodule has a larger value than a
      correctly classified one; 0.5 means no relation.

    A value is None if all nodules have the same value, or if no nodule is
    misclassified.
  """
  weights = records_lib.patient_weights(records, seed=seed)

  def estimates(metrics_fn):
    return scores.estimates(
      bootstrap.replicated(metrics_fn, weights, len(records))
    )

  tree = {}
  if 'fine_uncertainty' in records[0]:
    dice = records_lib.column(records, 'fine_dice')
    tree['rank_correlation_with_fine_dice'] = estimates(
      lambda weights: {
        name: rank_correlation(records_lib.column(records, name), dice, weights)
        for name in ('fine_uncertainty', 'fine_predicted')
      }
    )
  if 'malignancy_sd' in records[0]:
    labels = records_lib.column(records, 'label')
    known = labels >= 0
    probability = records_lib.column(records, 'malignancy_probability')
    wrong = (probability >= metrics.THRESHOLD) != labels
    signals = {
      'malignancy_sd': records_lib.column(records, 'malignancy_sd'),
      'nearness_to_half': -np.abs(probability - metrics.THRESHOLD),
    }
    tree['auc_for_wrong_labels'] = estimates(
      lambda weights: {
        name: metrics.area_under_roc(
          values[known], wrong[known], weights[..., known]
        )
        for name, values in signals.items()
      }
    )
  return tree


def rank_correlation(
  x: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """Computes Spearman's rank correlation.

  Args:
    x: (N,) values.
    y: (N,) values.
    weights: (..., N) integers, how often each pair counts.

  Returns:
    (...); NaN if all x, or all y, are equal.
  """
  # Its import takes a second, which an error of a config should not.
  from scipy import stats

  def correlation(counts):
    repeated = [np.repeat(values, counts) for values in (x, y)]
    if min(len(np.unique(values)) for values in repeated) < 2:
      return np.nan
    return stats.spearmanr(*repeated).statistic

  return np.apply_along_axis(correlation, -1, np.asarray(weights, int))
