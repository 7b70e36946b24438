"""The points of a sweep against its reference.

Intervals come from resampling test patients (`bootstrap`). Points that were
tested on the same nodules are resampled together, so that their difference is
a paired one; others apart. What another seed of training would change is in no
interval: that takes sweeps of several seeds.
"""

import statistics
from typing import NamedTuple

from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.system import errors

CLASS = 'class'
# The metric that sentences are about, of masks and of malignancy.
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
    differences: the same, of this minus the reference; None for the reference.
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
    same_coarse_net: names of points with a copy of the reference's coarse net,
      whose masks are compared once.
    seed: of the resampling.

  Returns:
    A list of `Result`.
  """
  resampling = _Resampling(seed)
  references = {
    output: resampling.metrics(records[reference], output)
    for output in _shown_outputs(records[reference], shown)
  }
  # Of several masks the last.
  finals = {MAIN[output]: output for output in references}
  results = []
  for point in plan:
    rows = records[point.name]
    for output in _shown_outputs(rows, shown):
      is_other = point.name != reference
      if is_other and output == 'coarse' and point.name in same_coarse_net:
        continue
      draw, values = resampling.metrics(rows, output)
      result = _result(point.name, point.title, output, rows, values)
      against = output
      if not is_other or output not in references:
        against = finals.get(MAIN[output])
      if against and (is_other or against != output):
        reference_draw, reference_values = references[against]
        result = result._replace(
          differences=scores.difference(values, reference_values),
          against=against,
          paired=draw == reference_draw,
        )
      results.append(result)
  return results


def _shown_outputs(records, shown):
  return [
    output
    for output in records_lib.outputs_of(records)
    if not shown or output in shown
  ]


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
  folds = [(point.name, point.title, records[point.name]) for point in plan]
  return [
    _result(name, title, output, rows, resampling.metrics(rows, output)[1])
    for name, title, rows in [*folds, (POOLED, POOLED, everything)]
    for output in _shown_outputs(rows, shown)
  ]


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


def _result(name, title, output, records, values):
  """A `Result` that is compared with nothing."""
  counts = records_lib.count(records)
  return Result(
    point=name,
    title=title,
    output=output,
    nodules=counts['nodules'],
    patients=counts['patients'],
    estimates=scores.estimates(values),
    differences=None,
    against=None,
    paired=False,
  )


def _nodules(records):
  return tuple(
    (record['nodule_id'], record['slice_index']) for record in records
  )


class _Resampling:
  """Draws the patients of test sets, of equal sets only once."""

  def __init__(self, seed):
    self._seed = seed
    self._draws = {}

  def metrics(self, records, output):
    """Which draw it was, and what `scores.of_output` makes of it."""
    nodules = _nodules(records)
    if nodules not in self._draws:
      index = len(self._draws)
      # The first is drawn as in its metrics.json; the others independently.
      seed = (self._seed, index) if index else self._seed
      self._draws[nodules] = (
        index,
        records_lib.patient_weights(records, seed=seed),
      )
    index, weights = self._draws[nodules]
    return index, scores.of_output(records, output, weights)
