"""Makes the paper's Tables 1 to 5, with this run's results among its rows.

A row that needs another run names the commands that fill it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from mtnet_jax.reports import paper
from mtnet_jax.reports import tables

if TYPE_CHECKING:
  from mtnet_jax.reports import commands as commands_lib

# Comparisons that only have rows in Tables 4 and 5.
_WITHOUT_MASK = ('class_without_mask', 'fine_without_mask')
_COLUMNS = {
  'segmentation': tables.SEGMENTATION,
  'classification': tables.CLASSIFICATION,
}
_PUBLISHED = {
  'segmentation': paper.FINE_SEGMENTATION,
  'classification': paper.CLASSIFICATION,
}

_REFERENCES = (
  "Numbers in brackets are the paper's references. Its text does not name the"
  ' authors of all of them.'
)


def make(
  summary: Mapping[str, Any],
  comparisons: Mapping[str, Any],
  commands: 'commands_lib.Commands | None' = None,
) -> list[tables.Table]:
  """Returns the five tables.

  Args:
    summary: from `scores.summarise`, for an MT-Net.
    comparisons: name -> `comparisons.Comparison`, from `comparisons.read`; the
      rows of others read 'not run'.
    commands: from `commands.for_run`; they fill the rows that are not run.
  """
  ours = {
    'segmentation': summary['segmentation'].get('fine'),
    'classification': summary.get('classification'),
  }
  made = [
    _multi_task(ours, comparisons),
    tables.Table(
      'table2',
      'Table 2: segmentation methods',
      _with_year('segmentation'),
      _single_task(
        'segmentation', paper.SEGMENTATION_METHODS, ours, comparisons
      ),
      _REFERENCES,
      'Method',
    ),
    tables.Table(
      'table3',
      'Table 3: classification methods',
      _with_year('classification'),
      [
        *_single_task(
          'classification', paper.CLASSIFICATION_METHODS, ours, comparisons
        ),
        _row(
          'Diameter only, here',
          year='',
          classification=summary['diameter_only'],
        ),
      ],
      _REFERENCES,
      'Method',
    ),
    _class_net_with_and_without(ours, comparisons),
    _fine_and_coarse(summary['segmentation'], comparisons),
  ]
  return [_with_commands(table, str(commands or '')) for table in made]


def _with_commands(table, command):
  rows = [
    row._replace(command=command) if row.kind == 'missing' else row
    for row in table.rows
  ]
  return table._replace(rows=rows)


def _multi_task(ours, comparisons):
  rows = []
  for strategy, (method, *values) in paper.MULTI_TASK.items():
    published = dict(zip(_COLUMNS, values, strict=True))
    rows.append(_row(f'{method}, its paper', 'paper', **published))
    rows += _rows_of(strategy, comparisons, *_COLUMNS)
  for strategy in _others(comparisons):
    rows += _rows_of(strategy, comparisons, *_COLUMNS)
  rows.append(_row('MT-Net, paper', 'paper', **_PUBLISHED))
  rows.append(_row('MT-Net, here', **ours))
  return tables.Table(
    'table1',
    'Table 1: multi-task methods',
    [
      column._replace(key=f'{task}_{column.key}')
      for task, columns in _COLUMNS.items()
      for column in columns
    ],
    rows,
    'The first five columns are segmentation, the last four classification.'
    ' The authors of the other methods measured them on their own selections'
    ' of nodules.',
    'Method',
  )


def _with_year(task):
  return [tables.Column('year', 'Year', 'plain'), *_COLUMNS[task]]


def _single_task(task, methods, ours, comparisons):
  """Returns rows for one task: the paper's, this run's, the comparisons'."""
  methods = [*methods, ('MT-Net, paper', 2024, _PUBLISHED[task])]
  names = [*paper.MULTI_TASK, *_others(comparisons)]
  missing = [name for name in names if name not in comparisons]
  rows = [
    *(
      _row(method, 'paper', year=year, **{task: values})
      for method, year, values in methods
    ),
    _row('MT-Net, here', year='', **{task: ours[task]}),
  ]
  for name in names:
    if name in comparisons:
      rows += _rows_of(name, comparisons, task, year='')
  if missing:
    title = f'{", ".join(missing)}, here'
    rows.append(tables.Row(title, [], 'missing'))
  return rows


def _class_net_with_and_without(ours, comparisons):
  without = paper.CLASSIFICATION_WITHOUT_COARSE
  return tables.Table(
    'table4',
    'Table 4: Class-net without and with the coarse mask',
    tables.CLASSIFICATION,
    [
      _row('Without, paper', 'paper', classification=without),
      *_rows_of(
        'class_without_mask',
        comparisons,
        'classification',
        title='Without, here',
      ),
      _row('With, paper', 'paper', classification=paper.CLASSIFICATION),
      _row('With, here', classification=ours['classification']),
    ],
    head='Coarse mask',
  )


def _fine_and_coarse(masks, comparisons):
  rows = [
    _row(title, kind, segmentation=values)
    for title, kind, values in (
      ('Coarse Seg-net alone, paper', 'paper', paper.COARSE_SEGMENTATION),
      ('Coarse Seg-net alone, here', 'nodules', masks.get('coarse')),
      ('Coarse and Fine, paper', 'paper', paper.FINE_SEGMENTATION),
      ('Coarse and Fine, here', 'nodules', masks.get('fine')),
      ('Fine - coarse, here', 'difference', masks.get('fine_minus_coarse')),
    )
    if kind != 'difference' or values
  ]
  rows += _rows_of(
    'fine_without_mask',
    comparisons,
    'segmentation',
    title='Fine without mask, here',
  )
  return tables.Table(
    'table5',
    'Table 5: segmentation without and with the coarse mask',
    tables.SEGMENTATION,
    rows,
    "The paper's first row is Coarse Seg-net alone, whose weights initialise"
    ' Fine Seg-net. The last rows show the effect of the mask itself: there,'
    ' the same Fine Seg-net gets no mask.',
    'Networks',
  )


def _row(title, kind='nodules', *, year=None, **values):
  """Returns a row of one task's estimates, or of both tasks'."""
  cells = [] if year is None else [year]
  for task, estimates in values.items():
    cells += tables.cells(estimates, _COLUMNS[task], kind)
  return tables.Row(title, cells, kind)


def _rows_of(name, comparisons, *tasks, title=None, year=None):
  """Returns a comparison's row and MT-Net's difference, or a missing row."""
  title = title or f'{name}, here'
  if name not in comparisons:
    return [tables.Row(title, [], 'missing')]
  return [
    _row(
      title,
      kind,
      year=year,
      **{task: getattr(comparisons[name], task + part) for task in tasks},
    )
    for title, kind, part in (
      (title, 'nodules', ''),
      (f'MT-Net - {title}', 'difference', '_difference'),
    )
  ]


def _others(comparisons):
  """Returns the strategies that the paper's Table 1 does not contain."""
  known = {'single', *_WITHOUT_MASK, *paper.MULTI_TASK}
  return ['single', *(name for name in comparisons if name not in known)]
