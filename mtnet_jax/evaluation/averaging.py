"""What averaging several outputs gains, and whether they disagree where wrong.

Single is what one run scores on each patch as it is: its own metrics, of
several runs the mean of theirs. Averaged is what their mean probabilities
score. Both are of the same nodules, resampled together, so that the difference
is a paired one. Its interval is of the patients: what other runs than these
would give is not in it.
"""

import numpy as np
from scipy import stats

from mtnet_jax import metrics
from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores


def judge(singles, records, unseen, *, seed):
  """What averaging says about itself, of nodules that no run has seen.

  Args:
    singles: records of each run by itself.
    records: of all together, of the same nodules in the same order.
    unseen: (N,) bool.
    seed: of the resampling.

  Returns:
    'nodules' and 'patients', how many, and if there are any the tree of
    `compare`, and under 'uncertainty' that of `uncertainty`.
  """
  records = records_lib.select(records, unseen)
  counts = records_lib.count(records)
  tree = {key: counts[key] for key in ('nodules', 'patients')}
  if records:
    singles = [records_lib.select(rows, unseen) for rows in singles]
    tree.update(compare(singles, records, seed=seed))
    tree['uncertainty'] = uncertainty(records, seed=seed)
  return tree


def compare(singles, averaged, *, seed):
  """Single and averaged outputs, and their difference.

  Args:
    singles, averaged, seed: as in `judge`, of the nodules that count.

  Returns:
    'single', 'averaged' and 'averaged_minus_single': output -> metric ->
    {'value', 'ci95'}, outputs being 'coarse', 'fine' and 'class'.
  """
  weights = records_lib.patient_weights(averaged, seed=seed)
  tree = {'single': {}, 'averaged': {}, 'averaged_minus_single': {}}
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
  """metric -> (value, replicates or None), the mean of several such."""
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


def uncertainty(records, *, seed):
  """Whether outputs disagree where they are wrong.

  Small nodules have a lower Dice and, being mostly edge, more disagreement; a
  probability near 0.5 is easily wrong and moves most. So what is known without
  averaging stands beside: the area of the mask, and how near the probability
  is to 0.5.

  Args:
    records: of averaged outputs, with the columns of `ensemble.disagreement`.
    seed: of the resampling.

  Returns:
    As far as there are such outputs, {'value', 'ci95'} under

    'rank_correlation_with_fine_dice': of 'fine_uncertainty', below 0 where
      masks are worse the more the outputs disagree, and of 'fine_predicted';
    'auc_for_wrong_labels': of 'malignancy_sd' and 'nearness_to_half', how often
      a nodule with a wrong label has a larger one than a nodule with the right
      label; 0.5 says nothing.

    A value is None where nothing differs, or no label is wrong.
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


def rank_correlation(x, y, weights):
  """Spearman's rank correlation.

  Args:
    x, y: (N,).
    weights: (..., N) how often each pair counts, integers.

  Returns:
    (...); NaN where all x, or all y, are the same.
  """

  def correlation(counts):
    repeated = [np.repeat(values, counts) for values in (x, y)]
    if min(len(np.unique(values)) for values in repeated) < 2:
      return np.nan
    return stats.spearmanr(*repeated).statistic

  return np.apply_along_axis(correlation, -1, np.asarray(weights, int))
