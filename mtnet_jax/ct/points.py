"""The points file of `predict`: where to look, one point a row.

A CSV file with a header. The names of its columns say what the numbers are:
`x,y,z` are patient coordinates in mm (LPS, as in DICOM), `row,col,slice` and
`i,j,k` (k the slice, j the row, i the column) are voxel indices from 0, slice
0 being the one of lowest z. An `id` column names the points; without one they
are 1, 2, ... Other columns are ignored.
"""

import csv
import dataclasses
import io
import math
import re
from typing import NamedTuple

from mtnet_jax.storage import files
from mtnet_jax.system import errors

# Columns of a file -> coordinates in the order of `Point.at`.
SYSTEMS = {
  ('x', 'y', 'z'): ('x', 'y', 'z'),
  ('row', 'col', 'slice'): ('slice', 'row', 'col'),
  ('i', 'j', 'k'): ('k', 'j', 'i'),
}
_MILLIMETRES = ('x', 'y', 'z')
# Ids become names of files: no separators, no leading dot, nothing exotic.
_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')
_WANTED = 'x,y,z (mm) or row,col,slice or i,j,k (voxels)'


class Point(NamedTuple):
  """A point: (x, y, z) in mm, or (slice, row, col)."""

  point_id: str
  at: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Points:
  """What a points file holds.

  Attributes:
    columns: names of the three columns of coordinates.
    points: in the order of the file.
    faults: (name of the point, reason) of the rows that cannot be used.
  """

  columns: tuple[str, str, str]
  points: list[Point]
  faults: list[tuple[str, str]]

  @property
  def in_mm(self):
    """Whether they are patient coordinates, and not voxel indices."""
    return self.columns == _MILLIMETRES


def read(path):
  """Reads a points file.

  Args:
    path: a CSV file; commas, semicolons or tabs.

  Returns:
    `Points`; a row that cannot be used is a fault, the others are kept.

  Raises:
    errors.InputError: it cannot be read, has no points, or its header does not
      say what the numbers are.
  """
  rows = _rows(path)
  if not rows:
    raise errors.InputError(
      f'{path} is empty: give a header, and a row a point.'
    )
  header = [name.strip().lower() for name in rows[0]]
  columns = _columns(path, header)
  order = [header.index(name) for name in SYSTEMS[columns]]
  id_at = header.index('id') if 'id' in header else None
  points, faults, used_ids = [], [], set()
  for number, row in enumerate(rows[1:], 1):
    cells = [cell.strip() for cell in row]
    cells += [''] * (len(header) - len(cells))
    name = cells[id_at] if id_at is not None else ''
    name = name or str(number)
    reason = _bad_id(name, used_ids) or _bad_cells(row, cells, header, order)
    if reason:
      # A name that is no id is not repeated: it could hold anything.
      shown = name if _ID.fullmatch(name) else f'row {number}'
      faults.append((shown, reason))
      continue
    used_ids.add(name.casefold())
    points.append(Point(name, tuple(float(cells[k]) for k in order)))
  if not points and not faults:
    raise errors.InputError(f'{path} holds a header and no point.')
  return Points(columns, points, faults)


def _rows(path):
  try:
    text = files.read_bytes(path).decode('utf-8-sig')
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read: {error.strerror}.'
    ) from error
  except UnicodeDecodeError as error:
    raise errors.InputError(
      f'{path} is no CSV text (UTF-8): save it as CSV.'
    ) from error
  first = text.partition('\n')[0]
  delimiter = max(',;\t', key=first.count)
  try:
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
  except csv.Error as error:
    raise errors.InputError(f'{path} is no CSV: {error}.') from error
  return [row for row in rows if any(cell.strip() for cell in row)]


def _columns(path, header):
  """The three columns of coordinates."""
  found = [names for names in SYSTEMS if set(names) <= set(header)]
  if len(found) > 1:
    raise errors.InputError(
      f'{path} has both {" and ".join(map(",".join, found))}: keep one.'
    )
  if not found:
    shown = ','.join(header)
    raise errors.InputError(
      f'{path} has the columns {shown[:60]!r}: it needs a header with'
      f' {_WANTED}.'
    )
  for name in (*found[0], 'id'):
    if header.count(name) > 1:
      raise errors.InputError(f'{path} has the column {name} twice: keep one.')
  return found[0]


def _bad_id(name, used_ids):
  if not _ID.fullmatch(name):
    return (
      'its id becomes the name of a file: take up to 64 of A-Z, a-z, 0-9, and'
      ' . _ - after the first'
    )
  if name.casefold() in used_ids:
    return 'its id was taken by a point before it'
  return None


def _bad_cells(row, cells, header, order):
  if len(row) > len(header):
    return f'its row has {len(row)} cells, the header {len(header)}'
  for k in order:
    if not cells[k]:
      return f'its {header[k]} is missing'
    try:
      value = float(cells[k])
    except ValueError:
      return f'its {header[k]} is {cells[k][:20]!r}, not a number'
    if not math.isfinite(value):
      return f'its {header[k]} is {cells[k][:20]}, not a finite number'
  return None
