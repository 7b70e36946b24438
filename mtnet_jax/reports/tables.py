"""Results as text, beside the paper's."""

from typing import NamedTuple

from mtnet_jax.reports import paper

SEGMENTATION = (
  ('dice', 'DI'),
  ('jaccard', 'JA'),
  ('accuracy', 'ACC'),
  ('recall', 'Recall'),
  ('specificity', 'SPE'),
)
CLASSIFICATION = (
  ('accuracy', 'ACC'),
  ('auc', 'AUC'),
  ('sensitivity', 'SEN'),
  ('specificity', 'SPE'),
)
# Strategies with the paper's three networks.
_MT_NETS = ('mtnet', 'cam', 'finetune')
_NAME_WIDTH = 26
_CELL_WIDTH = 24


class Row(NamedTuple):
  """A row of a table of results.

  Attributes:
    title: what the row is.
    cells: one per column: an estimate, {'value', 'ci95'}, or text, or None
      where the run has no such network.
    kind: 'nodules' (means over nodules), 'pooled' (over all pixels together),
      'paper', 'difference', or 'missing' (no run, and no cells).
    command: that would fill a missing row.
  """

  title: str
  cells: list
  kind: str
  command: str = ''


def heading(title, simulated):
  """The title of a table or a figure: simulated CT is said first."""
  return f'SIMULATED CT: {title}' if simulated else title


def texts(row):
  """The cells of a row as they are shown."""
  return [_text(cell, row.kind) for cell in row.cells]


def _text(cell, kind):
  if cell is None:
    return 'not run'
  if kind == 'paper' and cell['value'] is None:
    return '-'
  return difference(cell) if kind == 'difference' else percent(cell)


def percent(estimate):
  """'83.2 (81.0-85.1)' of {'value', 'ci95'}, 'n/a' where undefined."""
  return with_interval(estimate, lambda x: f'{100 * x:.1f}', between='-')


def difference(estimate):
  """'+2.1 (-0.4 to +4.6)' percentage points, 'n/a' where undefined."""
  return with_interval(estimate, signed)


def with_interval(estimate, text_of, *, between=' to '):
  """'VALUE (LOW to HIGH)' of {'value', 'ci95'}, 'n/a' where undefined.

  Args:
    estimate: its interval may be None, and is left out then.
    text_of: number -> text.
    between: the two ends.
  """
  if estimate['value'] is None:
    return 'n/a'
  text = text_of(estimate['value'])
  if estimate['ci95'] is not None:
    text += f' ({between.join(map(text_of, estimate["ci95"]))})'
  return text


def signed(fraction):
  """'+2.1' percentage points."""
  # Adding 0.0 turns -0.0 into 0.0.
  return f'{round(100 * fraction, 1) + 0.0:+.1f}'


def network_names(strategy='mtnet'):
  """'coarse', 'fine', 'class' -> what a strategy's networks are called."""
  if strategy in _MT_NETS:
    return {
      'coarse': 'Coarse Seg-net',
      'fine': 'Fine Seg-net',
      'class': 'Class-net',
    }
  return {'coarse': 'First mask', 'fine': 'Mask', 'class': 'Classifier'}


def segmentation_rows(summary, *, strategy='mtnet'):
  """Rows under `SEGMENTATION`, of the tree of `scores.summarise`."""
  tree, names = summary['segmentation'], network_names(strategy)
  published = {
    'coarse': paper.COARSE_SEGMENTATION,
    'fine': paper.FINE_SEGMENTATION,
  }
  if strategy != 'mtnet':
    _, other, _ = paper.MULTI_TASK.get(strategy, (None, None, None))
    published = {'coarse': None, 'fine': other}
  rows = []
  for name in ('coarse', 'fine'):
    if name in tree:
      rows += [
        Row(names[name], cells(tree[name], SEGMENTATION), 'nodules'),
        Row(
          'pooled pixels',
          cells(tree[name]['pooled'], SEGMENTATION),
          'pooled',
        ),
      ]
    elif strategy == 'mtnet':
      rows.append(Row(names[name], [None] * len(SEGMENTATION), 'nodules'))
    else:  # It has no such network.
      continue
    if published[name]:
      rows.append(published_row(published[name], SEGMENTATION))
  if 'fine_minus_coarse' in tree:
    change = cells(tree['fine_minus_coarse'], SEGMENTATION)
    rows.append(Row('Fine - coarse', change, 'difference'))
  return rows


def classification_rows(summary, *, strategy='mtnet'):
  """Rows under `CLASSIFICATION`, of the tree of `scores.summarise`."""
  name = network_names(strategy)['class']
  published = paper.CLASSIFICATION
  if strategy != 'mtnet':
    _, _, published = paper.MULTI_TASK.get(strategy, (None, None, None))
  rows = [Row(name, [None] * len(CLASSIFICATION), 'nodules')]
  if 'classification' in summary:
    found = cells(summary['classification'], CLASSIFICATION)
    rows = [Row(name, found, 'nodules')]
  if published:
    rows.append(published_row(published, CLASSIFICATION))
  baseline = cells(summary['diameter_only'], CLASSIFICATION)
  rows.append(Row('Diameter only', baseline, 'nodules'))
  if 'classification' in summary:
    change = summary['classification_minus_diameter_only']
    rows.append(
      Row(
        f'{name} - diameter only',
        cells(change, CLASSIFICATION),
        'difference',
      )
    )
  return rows


def cells(tree, columns):
  """The estimates of a tree, in the order of columns."""
  return [tree[key] for key, _ in columns]


def published_row(values, columns, title='paper, real CT'):
  """A row of what was published, which has no intervals."""
  return Row(
    title, [{'value': values[key], 'ci95': None} for key, _ in columns], 'paper'
  )


def _row(name, cells):
  return f'  {name:<{_NAME_WIDTH}}' + ''.join(
    f'{cell:>{_CELL_WIDTH}}' for cell in cells
  )


def table(head, columns, rows):
  """A table as lines of text, under its head."""
  lines = [_row(head, [title for _, title in columns])]
  for row in rows:
    indent = '  ' if row.kind in ('pooled', 'paper') else ''
    lines.append(_row(indent + row.title, texts(row)))
  return lines


class Column(NamedTuple):
  """A column.

  Attributes:
    key: its name in the CSV.
    title: its name on the page.
    form: 'percent' and 'fraction' hold estimates, {'value', 'ci95'}; 'plain'
      what is shown as it is.
  """

  key: str
  title: str
  form: str = 'percent'


class Table(NamedTuple):
  """A table.

  Attributes:
    name: of its CSV file, without the ending.
    title: what it shows.
    columns: of `Column`.
    rows: of `tables.Row`, a cell per column; 'missing' ones have none.
    note: what a reader must know.
    head: what the rows are.
  """

  name: str
  title: str
  columns: list[Column]
  rows: list[Row]
  note: str = ''
  head: str = ''


def percent_columns(columns, prefix=''):
  """Columns of (key, title), such as `tables.SEGMENTATION`."""
  return [Column(prefix + key, title) for key, title in columns]


def column_texts(table, row):
  """The cells of a row as they are shown."""
  return [
    _column_text(cell, column.form, row.kind)
    for cell, column in zip(row.cells, table.columns, strict=True)
  ]


def _column_text(cell, form, kind):
  if form == 'plain':
    return '' if cell is None else str(cell)
  if cell is None:
    return 'not run'
  if cell['value'] is None:
    return '-' if kind == 'paper' else 'n/a'
  if form == 'percent':
    return (difference if kind == 'difference' else percent)(cell)
  number = '{:+.3f}' if kind == 'difference' else '{:.3f}'
  text = number.format(cell['value'])
  if cell['ci95']:
    low, high = map(number.format, cell['ci95'])
    text += (
      f' ({low} to {high})' if kind == 'difference' else f' ({low}-{high})'
    )
  return text


def csv_rows(table, *, simulated):
  """A dict per row: estimates as fractions, with their 95 % interval."""
  rows = []
  for row in table.rows:
    out = {
      'row': row.title,
      'kind': row.kind,
      'simulated': simulated and row.kind != 'paper',
    }
    if row.command:
      out['command'] = row.command
    for column, cell in zip(table.columns, row.cells, strict=False):
      if column.form == 'plain':
        out[column.key] = cell
      elif cell is not None:
        low, high = cell['ci95'] or (None, None)
        out[column.key] = cell['value']
        out[f'{column.key}_low'], out[f'{column.key}_high'] = low, high
    rows.append(out)
  return rows
