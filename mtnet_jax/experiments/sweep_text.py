"""Describes the findings of a sweep in sentences, each with its interval."""

from collections.abc import Sequence

import ml_collections

from mtnet_jax.experiments import sweep_statistics
from mtnet_jax.reports import paper
from mtnet_jax.reports import tables

NETS = tables.network_names()
METRIC_NAMES = {'jaccard': 'Jaccard index', 'auc': 'AUC'}
_SIMULATED = (
  'SIMULATED CT: these results cannot be compared with those of the paper.'
)


def title_of(
  result: sweep_statistics.Result, results: Sequence[sweep_statistics.Result]
) -> str:
  """Returns the display name of a result.

  It is the title of the point. The name of the network comes first if several
  networks of `results` have the same task.

  Args:
    result: to name.
    results: all results that are shown together.
  """
  task = sweep_statistics.MAIN[result.output]
  several = {
    other.output
    for other in results
    if sweep_statistics.MAIN[other.output] == task
  }
  parts = [result.title]
  if len(several) > 1 or not result.title:
    parts.insert(0, NETS[result.output])
  return ', '.join(filter(None, parts))


def sentences(
  config: ml_collections.ConfigDict,
  results: Sequence[sweep_statistics.Result],
  simulated: bool,
) -> list[str]:
  """Returns the findings of a sweep, each with its interval.

  Args:
    config: of the sweep.
    results: from `sweep_statistics.fold_results` for the kind 'folds', from
      `sweep_statistics.compare` otherwise.
    simulated: whether the CT is simulated.
  """
  if config.kind == 'folds':
    found = _describe_folds(results)
  elif config.kind in ('grid', 'curve'):
    found = _describe_grid(config, results)
  else:
    found = _describe_points(config, results)
  published = paper.SWEEP_STATEMENTS.get(config.name)
  return [
    *found,
    *([f'Paper: {published}'] if published else []),
    *([_SIMULATED] if simulated else []),
  ]


def _describe_points(config, results):
  for result in results:
    if result.differences:
      metric = sweep_statistics.MAIN[result.output]
      title = title_of(result, results)
      reference = reference_of(config, result)
      yield (
        f'{title[0].upper()}{title[1:]}: {METRIC_NAMES[metric]}'
        f' {_in_words(result.differences[metric], reference)}'
        f'{"" if result.paired else ", on other test nodules"}.'
      )


def reference_of(
  config: ml_collections.ConfigDict, result: sweep_statistics.Result
) -> str:
  """Returns the display name of what a result is compared with.

  Args:
    config: of the sweep.
    result: one that has differences.
  """
  assert result.against is not None  # Every result with differences has it.
  if result.point == config.reference or result.against != result.output:
    return NETS[result.against]
  return 'the reference'


def _in_words(difference, against='the reference'):
  """Describes a difference and its interval, to follow the metric's name."""
  word = sweep_statistics.verdict(difference)
  if word == 'no interval':
    return 'not compared: there are too few patients for an interval'
  low, high = map(tables.signed, difference['ci95'])
  interval = f'95 % interval of the difference {low} to {high}'
  if word == 'no difference shown':
    return (
      f'not shown to differ from {against}'
      f' ({tables.signed(difference["value"])} points, {interval}, which'
      ' includes 0)'
    )
  points = 100 * abs(difference['value'])
  return f'{word} than {against} by {points:.1f} points ({interval})'


def _describe_grid(config, results):
  metric = sweep_statistics.MAIN[results[0].output]
  best = max(results, key=lambda r: r.estimates[metric]['value'] or 0)
  reference = next(r for r in results if r.point == config.reference)
  name = METRIC_NAMES[metric]
  yield (
    f'{name} at the reference, {reference.title}:'
    f' {tables.cell_text(reference.estimates[metric])}.'
  )
  if best.differences:
    yield (
      f'It is highest at {best.title},'
      f' {tables.cell_text(best.estimates[metric])}:'
      f' {_in_words(best.differences[metric])}.'
    )
  else:
    yield 'It is highest there.'
  others = [r for r in results if r.differences]
  words = [sweep_statistics.verdict(r.differences[metric]) for r in others]
  yield (
    f'Of the {len(others)} others, {words.count("lower")} are lower than the'
    f' reference and {words.count("higher")} higher, with an interval that'
    ' excludes 0. The intervals are not corrected for their number: one in'
    ' twenty excludes the true difference by chance. The highest value is also'
    ' too optimistic, because it was chosen on the test nodules.'
  )


def _describe_folds(results):
  for output in dict.fromkeys(result.output for result in results):
    metric = sweep_statistics.MAIN[output]
    pooled = next(
      r
      for r in results
      if r.point == sweep_statistics.POOLED and r.output == output
    )
    text = (
      f'{NETS[output]}: {METRIC_NAMES[metric]}'
      f' {tables.cell_text(pooled.estimates[metric])} over all'
      f' {pooled.nodules} nodules, each tested by the networks that have not'
      ' seen its fold'
    )
    found = sweep_statistics.spread(results, output)
    if found:
      low, high, deviation = (f'{100 * x:.1f}' for x in found)
      text += f'; single folds {low} to {high}, standard deviation {deviation}'
    yield f'{text}.'
