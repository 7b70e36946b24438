"""The points of a sweep against its reference.

Intervals come from resampling test patients (`bootstrap`). Points that were
tested on the same nodules are resampled together, so that their difference is
a paired one; others apart. What another seed of training would change is in no
interval: that takes sweeps of several seeds.
"""

import statistics
from typing import NamedTuple

from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.system import errors

CLASS = 'class'
# What is said in words, of masks and of malignancy.
MAIN = {'coarse': 'jaccard', 'fine': 'jaccard', CLASS: 'auc'}
POOLED = 'all folds together'


class Result(NamedTuple):
  """One output of one point.

  Attributes:
    point: its name; `POOLED` for all folds.
    title: what the report calls it; '' where the network's name is enough.
    output: 'coarse', 'fine' or 'class'.
    nodules, patients: how many it was tested on.
    estimates: metric -> {'value', 'ci95'}.
    differences: the same, of this less the reference; None for the reference.
    against: the reference's output that this is compared with; None if it is.
    paired: whether both were tested on the same nodules.
  """

  point: str
  title: str
  output: str
  nodules: int
  patients: int
  estimates: dict
  differences: dict | None
  against: str | None
  paired: bool


def compare(plan, records, *, reference, shown=(), same_coarse_net=(), seed=0):
  """Every output of every point, and how it differs from the reference.

  Args:
    plan: of `sweep_plan.points`.
    records: point name -> records of its test set.
    reference: name of a point. Others are compared with its output of the same
      name, or else its last mask; and its own masks with the last one.
    shown: outputs to compare; all by default.
    same_coarse_net: names of points that took the reference's coarse net over:
      its masks come once.
    seed: of the resampling.

  Returns:
    A list of `Result`.
  """
  resampling = _Resampling(seed)

  def outputs(name):
    return [
      output
      for output in records_lib.outputs_of(records[name])
      if not shown or output in shown
    ]

  references = {
    output: resampling.metrics(records[reference], output)
    for output in outputs(reference)
  }
  # Of several masks the last.
  finals = {MAIN[output]: output for output in references}
  results = []
  for point in plan:
    mine = records[point.name]
    for output in outputs(point.name):
      is_other = point.name != reference
      if is_other and output == 'coarse' and point.name in same_coarse_net:
        continue
      drawn, sampled = resampling.metrics(mine, output)
      result = _result(point.name, point.title, output, mine, sampled)
      against = output
      if not is_other or output not in references:
        against = finals.get(MAIN[output])
      if against and (is_other or against != output):
        reference_drawn, reference_sampled = references[against]
        result = result._replace(
          differences={
            metric: _difference(sampled[metric], reference_sampled[metric])
            for metric in sampled
          },
          against=against,
          paired=drawn == reference_drawn,
        )
      results.append(result)
  return results


def of_folds(plan, records, *, shown=(), seed=0):
  """Every fold by itself, and all nodules of the folds together.

  Raises:
    errors.InputError: a nodule is in the test sets of two folds.
  """
  resampling = _Resampling(seed)
  everything = [record for point in plan for record in records[point.name]]
  nodules = _nodules(everything)
  if len(set(nodules)) < len(nodules):
    raise errors.InputError(
      'a nodule is in the test sets of two folds: they are not of one dataset.'
    )
  named = [(point.name, point.title, records[point.name]) for point in plan]
  results = []
  for name, title, mine in [*named, (POOLED, POOLED, everything)]:
    for output in records_lib.outputs_of(mine):
      if not shown or output in shown:
        _, sampled = resampling.metrics(mine, output)
        results.append(_result(name, title, output, mine, sampled))
  return results


def spread(results, output):
  """Lowest, highest and standard deviation of the main metric over folds."""
  values = [
    result.estimates[MAIN[output]]['value']
    for result in results
    if result.output == output and result.point != POOLED
  ]
  values = [value for value in values if value is not None]
  if len(values) < 2:
    return None
  return min(values), max(values), statistics.stdev(values)


def verdict(estimate):
  """'lower', 'higher', 'no difference shown' or 'no interval'."""
  if estimate['value'] is None or estimate['ci95'] is None:
    return 'no interval'
  low, high = estimate['ci95']
  if low > 0:
    return 'higher'
  return 'lower' if high < 0 else 'no difference shown'


def _result(name, title, output, records, sampled):
  """A `Result` that is compared with nothing."""
  return Result(
    point=name,
    title=title,
    output=output,
    nodules=len(records),
    patients=len({record['patient_id'] for record in records}),
    estimates={
      metric: bootstrap.estimate(*values) for metric, values in sampled.items()
    },
    differences=None,
    against=None,
    paired=False,
  )


def _nodules(records):
  return [(record['nodule_id'], record['slice_index']) for record in records]


def _difference(mine, reference):
  """Estimate of the difference of two (value, replicates or None)."""
  replicates = None
  if mine[1] is not None and reference[1] is not None:
    replicates = mine[1] - reference[1]
  return bootstrap.estimate(mine[0] - reference[0], replicates)


class _Resampling:
  """Draws the patients of test sets, of equal sets only once."""

  def __init__(self, seed):
    self._seed = seed
    self._drawn = []

  def _draw(self, records):
    nodules = _nodules(records)
    for index, (known, weights) in enumerate(self._drawn):
      if known == nodules:
        return index, weights
    index = len(self._drawn)
    weights = bootstrap.patient_weights(
      [record['patient_id'] for record in records],
      # The first is drawn as in its metrics.json; others not in step with it.
      seed=(self._seed, index) if index else self._seed,
    )
    self._drawn.append((nodules, weights))
    return index, weights

  def metrics(self, records, output):
    """Which draw it was, and metric -> (value, replicates or None)."""
    index, weights = self._draw(records)
    return index, scores.of_output(records, output, weights)
