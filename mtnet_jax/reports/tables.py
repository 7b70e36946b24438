"""Defines tables of results, and converts them to text and CSV rows.

An estimate is a mapping with 'value' and 'ci95', a fraction and the [low, high]
ends of its 95 % interval; either is None if it is undefined.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from mtnet_jax import metrics


class Column(NamedTuple):
  """A column.

  Attributes:
    key: name in the CSV.
    title: name on the page.
    form: format of the cells, see `cell_text`.
  """

  key: str
  title: str
  form: str = 'percent'


class Row(NamedTuple):
  """A row.

  Attributes:
    title: name of the row.
    cells: one per column, see `cell_text`; empty for a 'missing' row.
    kind: 'nodules' (means over nodules), 'pooled' (over all pixels together),
      'paper', 'difference', 'counts' or 'missing' (of a run that does not
      exist).
    command: command that fills a 'missing' row.
  """

  title: str
  cells: list[Any]
  kind: str
  command: str = ''


class Table(NamedTuple):
  """A table.

  Attributes:
    name: of the CSV file, without its extension.
    title: caption.
    columns: from left to right.
    rows: from top to bottom.
    note: explanation below the table.
    head: heading of the column of row titles.
  """

  name: str
  title: str
  columns: Sequence[Column]
  rows: Sequence[Row]
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


def signed(fraction: float) -> str:
  """Formats a difference as percentage points, such as '+2.1'."""
  # Adding 0.0 turns -0.0 into 0.0.
  return f'{round(100 * fraction, 1) + 0.0:+.1f}'


# (form of the column, whether it is a difference) -> the function that formats
# a number, and the text between the ends of an interval.
_FORMS = {
  ('percent', False): (lambda fraction: f'{100 * fraction:.1f}', '-'),
  ('percent', True): (signed, ' to '),
  ('fraction', False): ('{:.3f}'.format, '-'),
  ('fraction', True): ('{:+.3f}'.format, ' to '),
  ('statistic', False): ('{:.2f}'.format, ' to '),
}


def cell_text(cell: Any, form: str = 'percent', kind: str = 'nodules') -> str:
  """Formats a cell, for example as '83.2 (81.0-85.1)'.

  Args:
    cell: an estimate, or None for a network that was not run. With the form
      'plain', any value.
    form: 'percent', 'fraction' or 'statistic' (which may be negative) for an
      estimate; 'plain' for `str(cell)`.
    kind: of the `Row`. A 'difference' gets a sign and, in per cent, is in
      percentage points: '+2.1 (-0.4 to +4.6)'.
  """
  if form == 'plain':
    return '' if cell is None else str(cell)
  if cell is None:
    return 'not run'
  if cell['value'] is None:
    return '-' if kind == 'paper' else 'n/a'
  format_fn, separator = _FORMS[form, kind == 'difference']
  text = format_fn(cell['value'])
  if cell['ci95']:
    text += f' ({separator.join(map(format_fn, cell["ci95"]))})'
  return text


def texts(table: Table, row: Row) -> list[str]:
  """Formats the cells of a row that is not 'missing'."""
  return [
    cell_text(cell, column.form, row.kind)
    for cell, column in zip(row.cells, table.columns, strict=True)
  ]


def csv_rows(table: Table, *, simulated: bool) -> list[dict[str, Any]]:
  """Returns a dict per row: fractions and the ends of their 95 % intervals."""
  rows = []
  for row in table.rows:
    values: dict[str, Any] = {
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


def row(
  title: str,
  estimates: Mapping[str, Any] | None,
  columns: Sequence[Column],
  kind: str = 'nodules',
) -> Row:
  """Returns a row of estimates.

  Args:
    title: of the row.
    estimates: key of a column -> estimate (a number if the kind is 'paper');
      None for a network that was not run.
    columns: of the table.
    kind: of the row.
  """
  return Row(title, cells(estimates, columns, kind), kind)


def cells(
  estimates: Mapping[str, Any] | None,
  columns: Sequence[Column],
  kind: str = 'nodules',
) -> list[Any]:
  """Returns the cells of `row`."""
  if estimates is None:
    return [None] * len(columns)
  values = [estimates[column.key] for column in columns]
  if kind == 'paper':  # The paper gives no intervals.
    return [{'value': value, 'ci95': None} for value in values]
  return values


def heading(title: str, simulated: bool) -> str:
  """Returns the title of a table or figure; marks simulated CT."""
  return f'SIMULATED CT: {title}' if simulated else title


def network_names(strategy: str = 'mtnet') -> dict[str, str]:
  """Returns 'coarse', 'fine' and 'class' -> a strategy's display names."""
  if strategy in _MT_NETS:
    return {
      'coarse': 'Coarse Seg-net',
      'fine': 'Fine Seg-net',
      'class': 'Class-net',
    }
  return {'coarse': 'First mask', 'fine': 'Mask', 'class': 'Classifier'}
