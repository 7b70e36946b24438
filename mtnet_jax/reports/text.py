"""Formats results as lines of text for a terminal."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from mtnet_jax import metrics
from mtnet_jax.reports import paper
from mtnet_jax.reports import run_tables
from mtnet_jax.reports import tables

# Key of averaging.judge(...)['uncertainty'] -> display name.
_UNCERTAINTY = {
  'rank_correlation_with_fine_dice': (
    'Rank correlation with fine DI (0: no relation)'
  ),
  'auc_for_wrong_labels': 'AUC for a wrong label (0.5: no relation)',
  'fine_uncertainty': 'fine_uncertainty',
  'fine_predicted': 'area of the mask alone',
  'malignancy_sd': 'malignancy_sd',
  'nearness_to_half': 'nearness of the probability to 0.5 alone',
}
_TITLE_WIDTH = 26
_CELL_WIDTH = 24


def averaging(
  results: Mapping[str, Any],
  *,
  runs: int,
  symmetries: bool,
  strategy: str,
  simulated: bool,
) -> str:
  """Returns several lines that compare single and averaged outputs.

  Args:
    results: from `averaging.judge`.
    runs: number of averaged runs.
    symmetries: whether outputs were also averaged over the eight symmetries.
    strategy: config.strategy.
    simulated: whether the CT is simulated.
  """
  if not results['nodules']:
    return (
      'The effect of averaging cannot be measured here: some run has seen the'
      ' patient of every nodule.'
    )
  single = 'one run' if runs == 1 else f'one of the {runs} runs, on average'
  together = [] if runs == 1 else [f'{runs} runs']
  if symmetries:
    together.append('8 symmetries')
  lines = [
    f'Effect of averaging ({" x ".join(together)}) on'
    f' {_sample(results, simulated)}.',
    f'Single: {single}. Per cent,'
    f' {_intervals(results, ", not over other runs")}.',
    '',
  ]
  names = tables.network_names(strategy)
  for task, columns, outputs in (
    ('segmentation', tables.SEGMENTATION, ('coarse', 'fine')),
    ('classification', tables.CLASSIFICATION, ('class',)),
  ):
    rows = [
      tables.row(title, results[part][output], columns, kind)
      for output in outputs
      if output in results['single']
      for title, part, kind in (
        (f'{names[output]}, single', 'single', 'nodules'),
        ('averaged', 'averaged', 'nodules'),
        ('averaged - single', 'averaged_minus_single', 'difference'),
      )
    ]
    if rows:
      lines += _lines(tables.Table(task, 'averaging', columns, rows))
  if results['uncertainty']:
    lines.append('Do the outputs disagree where they are wrong?')
  for question, estimates in results['uncertainty'].items():
    lines.append(f'  {_UNCERTAINTY[question]}')
    for name, estimate in estimates.items():
      value = tables.cell_text(estimate, 'statistic')
      lines.append(f'    {_UNCERTAINTY[name]:<42}{value}')
  return '\n'.join(lines)


def beside_the_paper(
  summary: Mapping[str, Any], *, simulated: bool, strategy: str = 'mtnet'
) -> str:
  """Returns several lines with the test set's metrics and the paper's.

  Args:
    summary: from `scores.summarise`.
    simulated: whether the CT is simulated.
    strategy: config.strategy.
  """
  lines = [
    f'{_sample(summary, simulated)}.'
    f' Per cent, mean over nodules, {_intervals(summary)}.',
    '',
    *_lines(run_tables.segmentation(summary, strategy)),
    *_lines(run_tables.classification(summary, strategy)),
    f'Paper: {paper.CITATION}.'
    + (
      ' Results on simulated CT cannot be compared with it.'
      if simulated
      else ''
    ),
  ]
  return '\n'.join(lines)


def _sample(counts, simulated):
  where = 'SIMULATED CT' if simulated else 'CT'
  return (
    f'{counts["nodules"]} nodules, {counts["patients"]} patient(s), {where}'
  )


def _intervals(counts, scope=''):
  if counts['patients'] < 2:
    return 'no intervals with one patient'
  return f'95 % interval over patients{scope}'


def _lines(table):
  """Yields the lines of a table, its name above and an empty line below."""
  titles = [column.title for column in table.columns]
  yield _line(table.name.capitalize(), titles)
  for row in table.rows:
    indent = '  ' if row.kind in ('pooled', 'paper') else ''
    yield _line(indent + row.title, tables.texts(table, row))
  yield ''


def _line(title, cells):
  return f'  {title:<{_TITLE_WIDTH}}' + ''.join(
    f'{cell:>{_CELL_WIDTH}}' for cell in cells
  )


def per_nodule(
  records: Sequence[Mapping[str, Any]], *, max_lines: int = 20
) -> str:
  """Returns a header, a line per record and the number of records left out.

  Args:
    records: from `records.make_records`.
    max_lines: maximum number of records.
  """
  columns = [
    (key, title, width)
    for key, title, width in (
      ('malignancy_probability', 'malignancy', 12),
      ('coarse_dice', 'coarse DI', 11),
      ('coarse_jaccard', 'JA', 7),
      ('fine_dice', 'fine DI', 9),
      ('fine_jaccard', 'JA', 7),
    )
    if records and key in records[0]
  ]
  lines = [
    f'  {"nodule":<24}{"mm":>6}{"label":>11}'
    + ''.join(f'{title:>{width}}' for _, title, width in columns)
  ]
  lines += [
    f'  {record["nodule_id"]:<24}{record["diameter_mm"]:>6.1f}'
    f'{metrics.LABELS[record["label"]]:>11}'
    + ''.join(f'{record[key]:>{width}.3f}' for key, _, width in columns)
    for record in records[:max_lines]
  ]
  if len(records) > max_lines:
    lines.append(f'  ... and {len(records) - max_lines} more in records.csv')
  return '\n'.join(lines)
