"""Results as lines of text, for a terminal."""

from mtnet_jax import metrics
from mtnet_jax.reports import paper
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


def averaging(tree, *, runs, symmetries, strategy, simulated):
  """Several lines of what `judge` found.

  Args:
    tree: of `judge`.
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
  where = 'SIMULATED CT' if simulated else 'CT'
  intervals = '95 % interval over patients, not over other runs'
  if tree['patients'] < 2:
    intervals = 'no intervals with one patient'
  lines = [
    f'What averaging is worth ({" x ".join(together)}), on {tree["nodules"]}'
    f' nodules, {tree["patients"]} patient(s), {where}.',
    f'Single: {single}. Per cent, {intervals}.',
    '',
  ]
  names = tables.network_names(strategy)
  for head, columns, outputs in (
    ('Segmentation', tables.SEGMENTATION, ('coarse', 'fine')),
    ('Classification', tables.CLASSIFICATION, ('class',)),
  ):
    rows = [
      tables.Row(title, tables.cells(tree[part][output], columns), kind)
      for output in outputs
      if output in tree['single']
      for title, part, kind in (
        (f'{names[output]}, single', 'single', 'nodules'),
        ('averaged', 'averaged', 'nodules'),
        ('averaged - single', 'averaged_minus_single', 'difference'),
      )
    ]
    if rows:
      lines += [*tables.table(head, columns, rows), '']
  if tree['uncertainty']:
    lines.append('Do the answers disagree where they are wrong?')
  for question, found in tree['uncertainty'].items():
    lines.append(f'  {_UNCERTAINTY[question]}')
    for name, estimate in found.items():
      said = tables.with_interval(estimate, '{:.2f}'.format)
      lines.append(f'    {_UNCERTAINTY[name]:<42}{said}')
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
  where = 'SIMULATED CT' if simulated else 'CT'
  intervals = (
    '95 % interval over patients'
    if summary['patients'] > 1
    else 'no intervals with one patient'
  )
  lines = [
    f'{summary["nodules"]} nodules, {summary["patients"]} patient(s), {where}.'
    f' Per cent, mean over nodules, {intervals}.',
    '',
  ]
  for head, columns, rows in (
    (
      'Segmentation',
      tables.SEGMENTATION,
      tables.segmentation_rows(summary, strategy=strategy),
    ),
    (
      'Classification',
      tables.CLASSIFICATION,
      tables.classification_rows(summary, strategy=strategy),
    ),
  ):
    lines += [*tables.table(head, columns, rows), '']
  lines.append(
    f'Paper: {paper.CITATION}.'
    + (' Simulated CT is no measure of it.' if simulated else '')
  )
  return '\n'.join(lines)


def per_nodule(records, *, most=20):
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
    for record in records[:most]
  ]
  if len(records) > most:
    lines.append(f'  ... and {len(records) - most} more in records.csv')
  return '\n'.join(lines)
