"""Results as text, beside the paper's."""

import functools
from typing import NamedTuple

import tqdm

from mtnet_jax import metrics
from mtnet_jax import paper

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
_NAME_WIDTH = 26
_CELL_WIDTH = 24


def progress_bar(description):
  """A function that shows a sequence's progress, with ETA."""
  return functools.partial(
    tqdm.tqdm, desc=description, unit='batch', leave=False
  )


def percent(estimate):
  """'83.2 (81.0-85.1)' of {'value', 'ci95'}, 'n/a' where undefined."""
  if estimate['value'] is None:
    return 'n/a'
  text = f'{100 * estimate["value"]:.1f}'
  if estimate['ci95'] is not None:
    low, high = estimate['ci95']
    text += f' ({100 * low:.1f}-{100 * high:.1f})'
  return text


class Row(NamedTuple):
  """A row of a table of results.

  Attributes:
    title: what the row is.
    cells: estimates, {'value', 'ci95'}, one per column.
    kind: 'nodules' (means over nodules), 'pooled' (over all pixels together),
      'paper' or 'difference'.
  """

  title: str
  cells: list
  kind: str


def segmentation_rows(summary):
  """Rows under `SEGMENTATION`, of the tree of `scores.summarise`."""
  tree = summary['segmentation']
  rows = []
  for name, title, published in (
    ('coarse', 'Coarse Seg-net', paper.COARSE_SEGMENTATION),
    ('fine', 'Fine Seg-net', paper.FINE_SEGMENTATION),
  ):
    rows += [
      Row(title, _cells(tree[name], SEGMENTATION), 'nodules'),
      Row(
        'pooled pixels',
        _cells(tree[name]['pooled'], SEGMENTATION),
        'pooled',
      ),
      _published(published, SEGMENTATION),
    ]
  difference = _cells(tree['fine_minus_coarse'], SEGMENTATION)
  return [*rows, Row('Fine - coarse', difference, 'difference')]


def classification_rows(summary):
  """Rows under `CLASSIFICATION`, of the tree of `scores.summarise`."""

  def row(title, name, kind='nodules'):
    return Row(title, _cells(summary[name], CLASSIFICATION), kind)

  return [
    row('Class-net', 'classification'),
    _published(paper.CLASSIFICATION, CLASSIFICATION),
    row('Diameter only', 'diameter_only'),
    row(
      'Class-net - diameter only',
      'classification_minus_diameter_only',
      'difference',
    ),
  ]


def _cells(tree, columns):
  return [tree[key] for key, _ in columns]


def _published(values, columns):
  cells = [{'value': values[key], 'ci95': None} for key, _ in columns]
  return Row('paper, real CT', cells, 'paper')


def difference(estimate):
  """'+2.1 (-0.4 to +4.6)' percentage points, 'n/a' where undefined."""
  if estimate['value'] is None:
    return 'n/a'
  text = _signed(estimate['value'])
  if estimate['ci95'] is not None:
    low, high = estimate['ci95']
    text += f' ({_signed(low)} to {_signed(high)})'
  return text


def _signed(fraction):
  # Adding 0.0 turns -0.0 into 0.0.
  return f'{round(100 * fraction, 1) + 0.0:+.1f}'


def _row(name, cells):
  return f'  {name:<{_NAME_WIDTH}}' + ''.join(
    f'{cell:>{_CELL_WIDTH}}' for cell in cells
  )


def beside_the_paper(summary, *, simulated):
  """The test set's metrics and the paper's, in per cent.

  Args:
    summary: of `scores.summarise`.
    simulated: whether the CT is simulated.

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
    ('Segmentation', SEGMENTATION, segmentation_rows(summary)),
    ('Classification', CLASSIFICATION, classification_rows(summary)),
  ):
    lines.append(_row(head, [title for _, title in columns]))
    for row in rows:
      indent = '  ' if row.kind in ('pooled', 'paper') else ''
      show = difference if row.kind == 'difference' else percent
      lines.append(_row(indent + row.title, map(show, row.cells)))
    lines.append('')
  lines.append(
    f'Paper: {paper.CITATION}.'
    + (' Simulated CT is no measure of it.' if simulated else '')
  )
  return '\n'.join(lines)


def per_nodule(records, *, most=20):
  """The first records, a line each."""
  head = (
    f'  {"nodule":<24}{"mm":>6}{"label":>11}{"malignancy":>12}'
    f'{"coarse DI":>11}{"JA":>7}{"fine DI":>9}{"JA":>7}'
  )
  lines = [head]
  for record in records[:most]:
    lines.append(
      f'  {record["nodule_id"]:<24}{record["diameter_mm"]:>6.1f}'
      f'{metrics.LABELS[record["label"]]:>11}'
      f'{record["malignancy_probability"]:>12.3f}'
      f'{record["coarse_dice"]:>11.3f}{record["coarse_jaccard"]:>7.3f}'
      f'{record["fine_dice"]:>9.3f}{record["fine_jaccard"]:>7.3f}'
    )
  if len(records) > most:
    lines.append(f'  ... and {len(records) - most} more in records.csv')
  return '\n'.join(lines)
