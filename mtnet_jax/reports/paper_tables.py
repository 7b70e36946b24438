"""Tables 1 to 5 of the paper, with this run's numbers between its own.

Which rows there are is the paper's choice; those that other runs would fill
say so, and by which command.
"""

from mtnet_jax.reports import paper
from mtnet_jax.reports import tables

_SWEEP = 'python -m mtnet_jax.sweep --config=configs/'
# What fills the rows of a comparison, by its name.
COMMANDS = {
  **dict.fromkeys(
    ('shared', 'feedback', 'serial', 'single'), f'{_SWEEP}baselines.py:table1'
  ),
  'class_without_mask': f'{_SWEEP}ablations.py:table4',
  'fine_without_mask': f'{_SWEEP}ablations.py:table5',
}
_SEGMENTATION = tables.percent_columns(tables.SEGMENTATION)
_CLASSIFICATION = tables.percent_columns(tables.CLASSIFICATION)
_YEAR = tables.Column('year', 'Year', 'plain')


def make(summary, comparisons):
  """The five tables.

  Args:
    summary: of `scores.summarise`, of an MT-Net.
    comparisons: name, of `COMMANDS`, -> `comparisons.Comparison`; what is not
      in it is `not run`.

  Returns:
    A list of `tables.Table`.
  """
  return [
    _multi_task(summary, comparisons),
    _segmentation(summary, comparisons),
    _classification(summary, comparisons),
    _class_net_with_and_without(summary, comparisons),
    _fine_and_coarse(summary, comparisons),
  ]


def _multi_task(summary, comparisons):
  both = tables.SEGMENTATION, tables.CLASSIFICATION
  rows = []
  for strategy, (method, *published) in paper.MULTI_TASK.items():
    values = [_published(x, c) for x, c in zip(published, both, strict=True)]
    rows.append(tables.Row(f'{method}, its paper', sum(values, []), 'paper'))
    rows += _rows_of(strategy, comparisons, *both)
  for strategy in _others(comparisons):
    rows += _rows_of(strategy, comparisons, *both)
  values = (
    _published(paper.FINE_SEGMENTATION, both[0]),
    _published(paper.CLASSIFICATION, both[1]),
  )
  rows.append(tables.Row('MT-Net, paper', sum(values, []), 'paper'))
  rows.append(
    tables.Row('MT-Net, here', _fine(summary) + _class(summary), 'nodules')
  )
  return tables.Table(
    'table1',
    'Table 1: multi-task methods',
    [
      *tables.percent_columns(tables.SEGMENTATION, 'segmentation_'),
      *tables.percent_columns(tables.CLASSIFICATION, 'classification_'),
    ],
    rows,
    'Segmentation DI to SPE, then classification ACC to SPE. The methods of'
    ' others were measured by their authors on selections of their own.',
    'Method',
  )


def _single_task(columns, methods, published, ours, comparisons):
  """Rows of a table of methods for one task: theirs, MT-Net's, the others'."""
  methods = [*methods, ('MT-Net, paper', 2024, published)]
  return [
    *(
      tables.Row(method, [year, *_published(values, columns)], 'paper')
      for method, year, values in methods
    ),
    tables.Row('MT-Net, here', ['', *ours], 'nodules'),
    *_strategies(comparisons, columns),
  ]


def _segmentation(summary, comparisons):
  rows = _single_task(
    tables.SEGMENTATION,
    paper.SEGMENTATION_METHODS,
    paper.FINE_SEGMENTATION,
    _fine(summary),
    comparisons,
  )
  return tables.Table(
    'table2',
    'Table 2: segmentation methods',
    [_YEAR, *_SEGMENTATION],
    rows,
    head='Method',
  )


def _classification(summary, comparisons):
  columns = tables.CLASSIFICATION
  rows = _single_task(
    columns,
    paper.CLASSIFICATION_METHODS,
    paper.CLASSIFICATION,
    _class(summary),
    comparisons,
  )
  diameter = tables.cells(summary['diameter_only'], columns)
  rows.append(tables.Row('Diameter only, here', ['', *diameter], 'nodules'))
  return tables.Table(
    'table3',
    'Table 3: classification methods',
    [_YEAR, *_CLASSIFICATION],
    rows,
    head='Method',
  )


def _class_net_with_and_without(summary, comparisons):
  columns = tables.CLASSIFICATION
  rows = [
    tables.published_row(
      paper.CLASSIFICATION_WITHOUT_COARSE, columns, 'Without, paper'
    ),
    *_rows_of(
      'class_without_mask', comparisons, columns, title='Without, here'
    ),
    tables.published_row(paper.CLASSIFICATION, columns, 'With, paper'),
    tables.Row('With, here', _class(summary), 'nodules'),
  ]
  return tables.Table(
    'table4',
    'Table 4: Class-net without and with the coarse mask',
    _CLASSIFICATION,
    rows,
    head='Coarse mask',
  )


def _fine_and_coarse(summary, comparisons):
  columns = tables.SEGMENTATION
  tree = summary['segmentation']
  rows = [
    tables.published_row(
      paper.COARSE_SEGMENTATION, columns, 'Coarse Seg-net alone, paper'
    ),
    tables.Row(
      'Coarse Seg-net alone, here',
      _cells(tree.get('coarse'), columns),
      'nodules',
    ),
    tables.published_row(
      paper.FINE_SEGMENTATION, columns, 'Coarse and Fine, paper'
    ),
    tables.Row('Coarse and Fine, here', _fine(summary), 'nodules'),
  ]
  if 'fine_minus_coarse' in tree:
    change = tables.cells(tree['fine_minus_coarse'], columns)
    rows.append(tables.Row('Fine - coarse, here', change, 'difference'))
  rows += _rows_of(
    'fine_without_mask', comparisons, columns, title='Fine without mask, here'
  )
  return tables.Table(
    'table5',
    'Table 5: segmentation without and with the coarse mask',
    _SEGMENTATION,
    rows,
    "The paper's first row is Coarse Seg-net by itself, which Fine Seg-net"
    ' goes on training from; what the mask alone is worth shows against the'
    ' same Fine Seg-net without it.',
    'Networks',
  )


def _rows_of(name, comparisons, *groups, title=None):
  """A comparison's numbers and what MT-Net is better by; or what is missing."""
  title = title or f'{name}, here'
  if name not in comparisons:
    return [tables.Row(title, [], 'missing', COMMANDS[name])]
  found, change = [], []
  for columns in groups:
    # By their first column: both groups have an accuracy.
    part = 'segmentation' if columns[0][0] == 'dice' else 'classification'
    tree = comparisons[name]
    found += _cells(getattr(tree, part), columns)
    change += _cells(getattr(tree, f'{part}_difference'), columns)
  return [
    tables.Row(title, found, 'nodules'),
    tables.Row(f'MT-Net - {title}', change, 'difference'),
  ]


def _others(comparisons):
  """Strategies that the paper's Table 1 does not have."""
  known = {*COMMANDS, *paper.MULTI_TASK}
  return ['single', *(name for name in comparisons if name not in known)]


def _strategies(comparisons, columns):
  names = [*paper.MULTI_TASK, *_others(comparisons)]
  present = [name for name in names if name in comparisons]
  rows = [
    row._replace(cells=['', *row.cells])
    for name in present
    for row in _rows_of(name, comparisons, columns)
  ]
  if len(present) < len(names):
    missing = ', '.join(name for name in names if name not in comparisons)
    rows.append(
      tables.Row(f'{missing}, here', [], 'missing', COMMANDS['single'])
    )
  return rows


def _fine(summary):
  return _cells(summary['segmentation'].get('fine'), tables.SEGMENTATION)


def _class(summary):
  return _cells(summary.get('classification'), tables.CLASSIFICATION)


def _cells(tree, columns):
  """None where there is no such network: `not run`."""
  return [None] * len(columns) if tree is None else tables.cells(tree, columns)


def _published(values, columns):
  return tables.published_row(values, columns).cells
