"""A table of the report, for its page and as a CSV file."""

from typing import NamedTuple

from mtnet_jax import tables


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
  rows: list[tables.Row]
  note: str = ''
  head: str = ''


def percent_columns(columns, prefix=''):
  """Columns of (key, title), such as `tables.SEGMENTATION`."""
  return [Column(prefix + key, title) for key, title in columns]


def texts(table, row):
  """The cells of a row as they are shown."""
  return [
    _text(cell, column.form, row.kind)
    for cell, column in zip(row.cells, table.columns, strict=True)
  ]


def _text(cell, form, kind):
  if form == 'plain':
    return '' if cell is None else str(cell)
  if cell is None:
    return 'not run'
  if cell['value'] is None:
    return '-' if kind == 'paper' else 'n/a'
  if form == 'percent':
    return (tables.difference if kind == 'difference' else tables.percent)(cell)
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
