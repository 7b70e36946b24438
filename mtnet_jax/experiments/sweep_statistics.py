"""Compares the points of a sweep with its reference.

Intervals come from resampling test patients (`bootstrap`). Points that were
tested on the same nodules are resampled together, which makes their difference
a paired one; others are resampled independently. No interval covers the
variation between training seeds: that needs sweeps with several seeds.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import statistics
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.system import errors

if TYPE_CHECKING:
  from mtnet_jax.experiments import sweep_plan

_Records = Sequence[Mapping[str, Any]]

CLASS = 'class'
# Output -> the metric by which points are compared in sentences and figures.
MAIN = {'coarse': 'jaccard', 'fine': 'jaccard', CLASS: 'auc'}
POOLED = 'all folds together'


class Result(NamedTuple):
  """One output of one point.

  Attributes:
    point: name of the point; `POOLED` for all folds.
    title: display name; '' if the name of the network is enough.
    output: 'coarse', 'fine' or 'class'.
    nodules: number of test nodules.
    patients: number of test patients.
    estimates: metric -> {'value', 'ci95'}.
    differences: metric -> {'value', 'ci95'} of this result minus the
      reference's; None for the reference itself.
    against: the reference's output that this one is compared with; None for
      the reference itself.
    paired: whether both were tested on the same nodules.
  """

  point: str
  title: str
  output: str
  nodules: int
  patients: int
  estimates: dict[str, Any]
  differences: dict[str, Any] | None
  against: str | None
  paired: bool


def compare(
  plan: 'Sequence[sweep_plan.Point]',
  records: Mapping[str, _Records],
  *,
  reference: str,
  outputs: Collection[str] = (),
  same_coarse_net: Collection[str] = (),
  seed: int = 0,
) -> list[Result]:
  """Compares every output of every point with the reference.

  An output is compared with the same output of the reference; if the reference
  lacks it, a mask is compared with its last mask. The reference's own first
  mask is compared with its last mask.

  Args:
    plan: from `sweep_plan.points`, one run per point.
    records: point name -> records of its test set.
    reference: name of the reference point.
    outputs: names of the outputs to compare; all by default.
    same_coarse_net: names of the points that share the reference's coarse net;
      their coarse masks are equal and only shown for the reference.
    seed: of the resampling.
  """
  resampling = _Resampling(seed)
  references = {
    output: resampling.metrics(records[reference], output)
    for output in _chosen_outputs(records[reference], outputs)
  }
  # Metric -> the last output that has it, which is the last of several masks.
  finals = {MAIN[output]: output for output in references}
  results = []
  for point in plan:
    rows = records[point.name]
    for output in _chosen_outputs(rows, outputs):
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


def _chosen_outputs(records, outputs):
  return [
    output
    for output in records_lib.outputs_of(records)
    if not outputs or output in outputs
  ]


def fold_results(
  plan: 'Sequence[sweep_plan.Point]',
  records: Mapping[str, _Records],
  *,
  outputs: Collection[str] = (),
  seed: int = 0,
) -> list[Result]:
  """Returns the results of every fold, and of all folds together.

  Args:
    plan: from `sweep_plan.points`, a point per fold.
    records: point name -> records of its test set.
    outputs: names of the outputs to show; all by default.
    seed: of the resampling.

  Raises:
    errors.InputError: a nodule is in the test sets of two folds.
  """
  resampling = _Resampling(seed)
  everything = [record for point in plan for record in records[point.name]]
  nodules = _nodules(everything)
  if len(set(nodules)) < len(nodules):
    raise errors.InputError(
      'a nodule is in the test sets of two folds: the runs of this sweep are'
      ' not of one dataset. Delete those that do not belong here.'
    )
  folds = [(point.name, point.title, records[point.name]) for point in plan]
  return [
    _result(name, title, output, rows, resampling.metrics(rows, output)[1])
    for name, title, rows in [*folds, (POOLED, POOLED, everything)]
    for output in _chosen_outputs(rows, outputs)
  ]


def spread(
  results: Sequence[Result], output: str
) -> tuple[float, float, float] | None:
  """Returns how the main metric of an output varies over the folds.

  Args:
    results: from `fold_results`.
    output: 'coarse', 'fine' or 'class'.

  Returns:
    Minimum, maximum and standard deviation; None for fewer than two folds.
  """
  values = [
    result.estimates[MAIN[output]]['value']
    for result in results
    if result.output == output and result.point != POOLED
  ]
  values = [value for value in values if value is not None]
  if len(values) < 2:
    return None
  return min(values), max(values), statistics.stdev(values)


def verdict(estimate: Mapping[str, Any]) -> str:
  """Interprets the interval of a difference.

  Args:
    estimate: {'value', 'ci95'} of the difference.

  Returns:
    'lower', 'higher', 'no difference shown' or 'no interval'.
  """
  if estimate['value'] is None or estimate['ci95'] is None:
    return 'no interval'
  low, high = estimate['ci95']
  if low > 0:
    return 'higher'
  return 'lower' if high < 0 else 'no difference shown'


def _result(name, title, output, records, values):
  """Returns a `Result` without a comparison."""
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
  """Resamples the patients of test sets; equal test sets share their draws."""

  def __init__(self, seed):
    self._seed = seed
    self._draws = {}

  def metrics(self, records, output):
    """Returns the index of the draw, and the metrics with their replicates."""
    nodules = _nodules(records)
    if nodules not in self._draws:
      index = len(self._draws)
      # The first draw is that of the run's metrics.json; others must be
      # independent of it.
      seed = (self._seed, index) if index else self._seed
      self._draws[nodules] = (
        index,
        records_lib.patient_weights(records, seed=seed),
      )
    index, weights = self._draws[nodules]
    return index, scores.of_output(records, output, weights)
