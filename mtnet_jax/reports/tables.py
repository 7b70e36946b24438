"""Tables of results: their columns and rows, as text and as rows of a CSV."""

from typing import NamedTuple

from mtnet_jax import metrics


class Column(NamedTuple):
  """A column.

  Attributes:
    key: its name in the CSV.
    title: its name on the page.
    form: of its cells, as in `cell_text`.
  """

  key: str
  title: str
  form: str = 'percent'


class Row(NamedTuple):
  """A row of a table of results.

  Attributes:
    title: what the row is.
    cells: one per column, as in `cell_text`.
    kind: 'nodules' (means over nodules), 'pooled' (over all pixels together),
      'paper', 'difference', 'counts', or 'missing' (no run, and no cells).
    command: that would fill a missing row.
  """

  title: str
  cells: list
  kind: str
  command: str = ''


class Table(NamedTuple):
  """A table.

  Attributes:
    name: of its CSV file, without the ending.
    title: what it shows.
    columns: of `Column`.
    rows: of `Row`, a cell per column; 'missing' ones have none.
    note: what a reader must know.
    head: what the rows are.
  """

  name: str
  title: str
  columns: list[Column]
  rows: list[Row]
  note: str = ''
  head: str = ''


SEGMENTATION = tuple(
  map(Column, metrics.SEGMENTATION, ('DI', 'JA', 'ACC', 'Recall', 'SPE'))
)
CLASSIFICATION = tuple(
  map(Column, metrics.CLASSIFICATION, ('ACC', 'AUC', 'SEN', 'SPE'))
)
# Strategies with the paper's three networks.
_MT_NETS = ('mtnet', 'cam', 'finetune')


def signed(fraction):
  """'+2.1' percentage points."""
  # Adding 0.0 turns -0.0 into 0.0.
  return f'{round(100 * fraction, 1) + 0.0:+.1f}'


# Form of an estimate, and whether it is a difference -> the text of a number,
# and what stands between the ends of an interval.
_FORMS = {
  ('percent', False): (lambda fraction: f'{100 * fraction:.1f}', '-'),
  ('percent', True): (signed, ' to '),
  ('fraction', False): ('{:.3f}'.format, '-'),
  ('fraction', True): ('{:+.3f}'.format, ' to '),
  ('statistic', False): ('{:.2f}'.format, ' to '),
}


def cell_text(cell, form='percent', kind='nodules'):
  """A cell as it is shown, such as '83.2 (81.0-85.1)'.

  Args:
    cell: an estimate, {'value', 'ci95'}, None in both where undefined; None
      for a network that was not run.
    form: 'percent', 'fraction' or 'statistic' (which may be negative) of an
      estimate; 'plain' for what is shown as it is.
    kind: of the `Row`. A 'difference' has a sign: '+2.1 (-0.4 to +4.6)' are
      percentage points.
  """
  if form == 'plain':
    return '' if cell is None else str(cell)
  if cell is None:
    return 'not run'
  if cell['value'] is None:
    return '-' if kind == 'paper' else 'n/a'
  number, between = _FORMS[form, kind == 'difference']
  text = number(cell['value'])
  if cell['ci95']:
    text += f' ({between.join(map(number, cell["ci95"]))})'
  return text


def texts(table, row):
  """The cells of a row as they are shown."""
  return [
    cell_text(cell, column.form, row.kind)
    for cell, column in zip(row.cells, table.columns, strict=True)
  ]


def csv_rows(table, *, simulated):
  """A dict per row: estimates as fractions, with their 95 % interval."""
  rows = []
  for row in table.rows:
    values = {
      'row': row.title,
      'kind': row.kind,
      'simulated': simulated and row.kind != 'paper',
    }
    if row.command:
      values['command'] = row.command
    for column, cell in zip(table.columns, row.cells, strict=False):
      if column.form == 'plain':
        values[column.key] = cell
      elif cell is not None:
        low, high = cell['ci95'] or (None, None)
        values[column.key] = cell['value']
        values[f'{column.key}_low'] = low
        values[f'{column.key}_high'] = high
    rows.append(values)
  return rows


def row(title, tree, columns, kind='nodules'):
  """A row of what belongs together.

  Args:
    title, kind: of the row.
    tree: key of the column -> estimate; None for a network that was not run;
      if of the kind 'paper', key -> number.
    columns: of `Column`.
  """
  return Row(title, cells(tree, columns, kind), kind)


def cells(tree, columns, kind='nodules'):
  """The cells of `row`."""
  if tree is None:
    return [None] * len(columns)
  values = [tree[column.key] for column in columns]
  if kind == 'paper':  # It has no intervals.
    return [{'value': value, 'ci95': None} for value in values]
  return values


def heading(title, simulated):
  """The title of a table or a figure: simulated CT is said first."""
  return f'SIMULATED CT: {title}' if simulated else title


def network_names(strategy='mtnet'):
  """'coarse', 'fine', 'class' -> what a strategy's networks are called."""
  if strategy in _MT_NETS:
    return {
      'coarse': 'Coarse Seg-net',
      'fine': 'Fine Seg-net',
      'class': 'Class-net',
    }
  return {'coarse': 'First mask', 'fine': 'Mask', 'class': 'Classifier'}
