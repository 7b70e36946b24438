"""Reads a user's CSV files of nodules to select and of folds.

A file has a header with a key column: `nodule_id`, `seriesuid` (all nodules of
a series, under LUNA16's name for the column) or `patient_id`. If a file has
several keys, the first in this order is used. A file of folds also has a column
`fold` from 0 to 4. Other columns and lines that begin with # are ignored.
"""

from collections.abc import Iterator
import csv
import io
import re
from typing import NamedTuple

from tfds_lidc import errors
from tfds_lidc import paths
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import selection

_MAX_BYTES = 5 << 20
# Field of a nodule -> names of its column in lower case; the finest key first.
_KEYS = {
  'nodule_id': ('nodule_id', 'nodule id'),
  'series_uid': (
    'seriesuid',
    'series_uid',
    'seriesinstanceuid',
    'series instance uid',
  ),
  'patient_id': ('patient_id', 'patient id', 'patientid'),
}
_WANTED = 'nodule_id, seriesuid or patient_id'
_FOLDS = 'folds go from 0 to 4: 0 to 2 train, 3 validates and 4 tests'


class _Row(NamedTuple):
  """One row of a file: line number, value of the key, text of the fold."""

  line: int
  value: str
  fold: str


def read_nodules(path: str) -> tuple[str, ...]:
  """Reads a list of nodules.

  Args:
    path: the CSV file.

  Returns:
    The ids of the nodules that the file names, sorted and without duplicates.

  Raises:
    InputError: the file cannot be read, has another format, or names something
      that LIDC-IDRI does not contain.
  """
  key, rows = _read(path, 'nodules')
  members = _members(key)
  found = {
    nodule_id for row in rows for nodule_id in _of_row(path, key, row, members)
  }
  if not found:
    raise _no_nodule(path)
  return tuple(sorted(found))


def read_folds(path: str) -> tuple[tuple[str, int], ...]:
  """Reads folds.

  Args:
    path: the CSV file.

  Returns:
    (nodule_id, fold) of each nodule that the file covers, sorted.

  Raises:
    InputError: as in `read_nodules`; or a fold is not from 0 to 4; or two rows
      contradict each other.
  """
  key, rows = _read(path, 'folds')
  members = _members(key)
  folds: dict[str, int] = {}
  lines: dict[str, tuple[int, int]] = {}
  values = [_fold(path, row) for row in rows]
  _check_folds(path, rows, values)
  for row, fold in zip(rows, values, strict=True):
    first_line, first_fold = lines.setdefault(row.value, (row.line, fold))
    if first_fold != fold:
      raise errors.InputError(
        f'{path} has {row.value} in fold {first_fold} (line {first_line}) and '
        f'in fold {fold} (line {row.line}); keep one'
      )
    folds.update(dict.fromkeys(_of_row(path, key, row, members), fold))
  if not folds:
    raise _no_nodule(path)
  return tuple(sorted(folds.items()))


def _no_nodule(path: str) -> errors.InputError:
  return errors.InputError(
    f'{path} names no nodule: the readers marked none in its series'
  )


def splits_patients(folds: tuple[tuple[str, int], ...]) -> bool:
  """Whether some patient has nodules in several folds."""
  patients = {n.nodule_id: n.patient_id for n in selection.clusters()}
  first: dict[str, int] = {}
  return any(
    first.setdefault(patients[nodule_id], fold) != fold
    for nodule_id, fold in folds
  )


def write(nodules: list[selection.Nodule]) -> str:
  """Returns nodules as CSV text that `read_nodules` and `read_folds` read."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(('nodule_id', 'patient_id', 'seriesuid', 'fold', 'label'))
  names = {**dict(enumerate(selection.LABELS)), selection.OPEN: 'open'}
  for n in nodules:
    writer.writerow(
      (n.nodule_id, n.patient_id, n.series_uid, n.fold, names[n.label])
    )
  return text.getvalue()


def _members(key: str) -> dict[str, list[str]]:
  """Maps each value of a key to the ids of its nodules."""
  found: dict[str, list[str]] = {}
  for nodule in selection.clusters():
    found.setdefault(getattr(nodule, key), []).append(nodule.nodule_id)
  return found


def _values_of_scans(key: str) -> set[str]:
  """Values of a key over all scans, also of those without any nodule."""
  return {getattr(scan, key) for scan in annotations.scans().values()}


def _of_row(
  path: str, key: str, row: _Row, members: dict[str, list[str]]
) -> list[str]:
  """Ids of the nodules that a row names; empty if the readers marked none."""
  if row.value in members:
    return members[row.value]
  if key != 'nodule_id' and row.value in _values_of_scans(key):
    return []
  way_out = {
    'nodule_id': 'tfds_lidc.cohort --config=all --csv=FILE writes them all',
    'series_uid': 'a SeriesInstanceUID is needed',
    'patient_id': 'they are written as LIDC-IDRI-0001',
  }[key]
  raise errors.InputError(
    f'{path}, line {row.line}: {row.value[:80]!r} is no {_KEYS[key][0]} of '
    f'LIDC-IDRI; {way_out}'
  )


def _fold(path: str, row: _Row) -> int:
  # Spreadsheets write 3 as 3.0 if other cells of the column have decimals.
  number = re.fullmatch(r'(\d{1,3})(?:[.,]0*)?', row.fold)
  if not number:
    raise errors.InputError(
      f'{path}, line {row.line}: {row.fold[:20]!r} is not a fold; {_FOLDS}'
    )
  return int(number[1])


def _check_folds(path: str, rows: list[_Row], values: list[int]) -> None:
  """Raises `InputError` if the folds are not numbered from 0 to 4."""
  largest = max(values)
  if largest < selection.NUM_FOLDS:
    return
  way_out = 'number them like that'
  if set(values) <= set(range(10)) and largest > 5:
    way_out = (
      "of ten, such as LUNA16's subsets, make five by halving each number "
      '(0 and 1 become 0, 2 and 3 become 1, ...)'
    )
  elif min(values) == 1 and largest == 5:
    way_out = 'subtract 1 from each'
  line = rows[values.index(largest)].line
  raise errors.InputError(
    f'{path}, line {line}: there is no fold {largest}; {_FOLDS}: {way_out}'
  )


def _read(path: str, kind: str) -> tuple[str, list[_Row]]:
  """Returns the key column as a field of a nodule, and at least one row."""
  table = _table(path)
  _, first_row = next(table, (0, []))
  header = [name.lower() for name in first_row]
  key, column = next(
    (
      (key, header.index(name))
      for key, names in _KEYS.items()
      for name in names
      if name in header
    ),
    ('', 0),
  )
  wanted = ['fold'] if kind == 'folds' else []
  if not key or any(name not in header for name in wanted):
    raise errors.InputError(
      f'{path} has the columns {",".join(header)[:60]!r}; {kind}= needs a '
      f'header with {_WANTED}{" and with fold" if wanted else ""}'
    )
  if any(header.count(name) > 1 for name in (header[column], *wanted)):
    raise errors.InputError(
      f'{path} has a column twice ({",".join(header)[:60]!r}); keep one'
    )
  fold_column = header.index('fold') if wanted else None
  rows = []
  for line, cells in table:
    cells += [''] * (len(header) - len(cells))
    if not cells[column]:
      raise errors.InputError(
        f'{path}, line {line}: the column {header[column]} is empty; fill it, '
        'or delete the line'
      )
    fold = '' if fold_column is None else cells[fold_column]
    rows.append(_Row(line, cells[column], fold))
  if not rows:
    raise errors.InputError(
      f'{path} has a header but no rows; add a row for each nodule, series or '
      'patient'
    )
  return key, rows


def _table(path: str) -> Iterator[tuple[int, list[str]]]:
  """Yields the line number and the stripped cells of each row with content."""
  lines = [
    '' if line.lstrip().startswith('#') else line
    for line in _text(path).splitlines()
  ]
  first = next((line for line in lines if line.strip()), '')
  delimiter = max(',;\t', key=first.count)
  reader = csv.reader(lines, delimiter=delimiter)
  try:
    for row in reader:
      cells = [cell.strip() for cell in row]
      if any(cells):
        yield reader.line_num, cells
  except csv.Error as e:
    raise errors.InputError(
      f'{path}, line {reader.line_num}: this is no CSV ({e})'
    ) from e


def _text(path: str) -> str:
  """Reads a file as UTF-8 text; a file that is too large is an error."""
  try:
    with paths.open_file(paths.expand(path)) as file:
      data = file.read(_MAX_BYTES + 1)
  except (OSError, ValueError) as e:  # ValueError: a path with a zero byte
    raise errors.InputError(
      f'{path} cannot be read ({getattr(e, "strerror", e)}); correct the path. '
      'A dataset that was built from this file opens by its own name, without '
      'the file'
    ) from e
  if len(data) > _MAX_BYTES:
    raise errors.InputError(
      f'{path} has more than {_MAX_BYTES >> 20} MiB: it is no list of the '
      '2651 nodules of LIDC-IDRI; give a CSV file of them'
    )
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as e:
    raise errors.InputError(
      f'{path} is not UTF-8 text; save it as CSV in UTF-8'
    ) from e
  if '\0' in text:
    raise errors.InputError(f'{path} is not text; save it as CSV in UTF-8')
  return text
