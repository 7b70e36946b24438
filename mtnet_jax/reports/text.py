"""Results as lines of text, for a terminal."""

from mtnet_jax import metrics
from mtnet_jax.reports import paper
from mtnet_jax.reports import run_tables
from mtnet_jax.reports import tables

# What the numbers of `uncertainty` are called.
_UNCERTAINTY = {
  'rank_correlation_with_fine_dice': (
    'Rank correlation with fine DI (0 says nothing)'
  ),
  'auc_for_wrong_labels': 'AUC for a wrong label (0.5 says nothing)',
  'fine_uncertainty': 'fine_uncertainty',
  'fine_predicted': 'area of the mask alone',
  'malignancy_sd': 'malignancy_sd',
  'nearness_to_half': 'nearness of the probability to 0.5 alone',
}
_TITLE_WIDTH = 26
_CELL_WIDTH = 24


def averaging(tree, *, runs, symmetries, strategy, simulated):
  """Several lines of what `averaging.judge` found.

  Args:
    tree: of `averaging.judge`.
    runs: how many were averaged.
    symmetries: whether over the eight symmetries, too.
    strategy: of the config.
    simulated: whether the CT is simulated.
  """
  if not tree['nodules']:
    return (
      'What averaging is worth cannot be told here: every nodule is of a'
      ' patient that some run has seen.'
    )
  single = 'one run' if runs == 1 else f'one of the {runs} runs, on average'
  together = [] if runs == 1 else [f'{runs} runs']
  if symmetries:
    together.append('8 symmetries')
  lines = [
    f'What averaging is worth ({" x ".join(together)}), on'
    f' {_sample(tree, simulated)}.',
    f'Single: {single}. Per cent, {_intervals(tree, ", not over other runs")}.',
    '',
  ]
  names = tables.network_names(strategy)
  for task, columns, outputs in (
    ('segmentation', tables.SEGMENTATION, ('coarse', 'fine')),
    ('classification', tables.CLASSIFICATION, ('class',)),
  ):
    rows = [
      tables.row(title, tree[part][output], columns, kind)
      for output in outputs
      if output in tree['single']
      for title, part, kind in (
        (f'{names[output]}, single', 'single', 'nodules'),
        ('averaged', 'averaged', 'nodules'),
        ('averaged - single', 'averaged_minus_single', 'difference'),
      )
    ]
    if rows:
      lines += _lines(tables.Table(task, 'averaging', columns, rows))
  if tree['uncertainty']:
    lines.append('Do the outputs disagree where they are wrong?')
  for question, found in tree['uncertainty'].items():
    lines.append(f'  {_UNCERTAINTY[question]}')
    for name, estimate in found.items():
      value = tables.cell_text(estimate, 'statistic')
      lines.append(f'    {_UNCERTAINTY[name]:<42}{value}')
  return '\n'.join(lines)


def beside_the_paper(summary, *, simulated, strategy='mtnet'):
  """The test set's metrics and the paper's, in per cent.

  Args:
    summary: of `scores.summarise`.
    simulated: whether the CT is simulated.
    strategy: of the config.

  Returns:
    Several lines of text.
  """
  lines = [
    f'{_sample(summary, simulated)}.'
    f' Per cent, mean over nodules, {_intervals(summary)}.',
    '',
    *_lines(run_tables.segmentation(summary, strategy)),
    *_lines(run_tables.classification(summary, strategy)),
    f'Paper: {paper.CITATION}.'
    + (' Simulated CT is no measure of it.' if simulated else ''),
  ]
  return '\n'.join(lines)


def _sample(tree, simulated):
  where = 'SIMULATED CT' if simulated else 'CT'
  return f'{tree["nodules"]} nodules, {tree["patients"]} patient(s), {where}'


def _intervals(tree, scope=''):
  if tree['patients'] < 2:
    return 'no intervals with one patient'
  return f'95 % interval over patients{scope}'


def _lines(table):
  """A table as lines of text, below its name, with an empty line at its end."""
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


def per_nodule(records, *, max_lines=20):
  """The first records, a line each."""
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
