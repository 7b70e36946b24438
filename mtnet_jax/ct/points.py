"""Where `predict` looks: a file of points, as spreadsheets and tools write it.

A CSV file with a header (or `# columns`, as 3D Slicer's .fcsv), a 3D Slicer
markups file (.mrk.json) or MONAI's list of boxes (.json). In a table, names of
columns say what the numbers are: `x,y,z` are patient coordinates in mm (LPS, as
in DICOM; also `x (mm)`, or `coordX` as in LUNA16), `r,a,s` or `x (RAS)` those
of NIfTI and 3D Slicer; `row,col,slice` and `i,j,k` (k the slice, j the row, i
the column) are voxel indices from 0, slice 0 being the one of lowest z. `id`
names the points; without it they are 1, 2, ... Rows with a `seriesuid` are of
that series only. Other columns are ignored.
"""

import dataclasses
import math
import re
from typing import NamedTuple

from mtnet_jax.ct import point_columns
from mtnet_jax.ct import point_lists
from mtnet_jax.ct import tables
from mtnet_jax.storage import files
from mtnet_jax.system import errors

# Ids become names of files: no separators, no leading dot, nothing exotic.
_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')
_COMMENT = re.compile(r'#\s*([A-Za-z ]+?)\s*=\s*(.*)')


class Point(NamedTuple):
  """A point: (x, y, z) in mm, LPS, or (slice, row, col)."""

  point_id: str
  at: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Points:
  """What a points file holds.

  Attributes:
    columns: names of the three columns of coordinates.
    points: in the order of the file.
    faults: (name of the point, reason) of the rows that cannot be used.
    series: name of the point -> UID of its series, where the file says it.
  """

  columns: tuple[str, str, str]
  points: list[Point]
  faults: list[tuple[str, str]]
  series: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def in_mm(self):
    """Whether they are patient coordinates, and not voxel indices."""
    return point_columns.in_mm(self.columns)

  def of_series(self, uid):
    """Those of a series: of files that name none all, of others its own.

    Args:
      uid: of the series; '' where it is not known.

    Raises:
      errors.InputError: the file is of other series only; or of several, and
        which one is not known.
    """
    several = set(self.series.values())
    if not uid:
      if len(several) > 1:
        raise errors.InputError(
          f'the points are of {len(several)} series, and the CT does not say'
          ' which it is: name its file after its series UID, or leave the rows'
          ' of one.'
        )
      return self

    def is_own(name):
      return self.series.get(name, uid) == uid

    points = [point for point in self.points if is_own(point.point_id)]
    faults = [fault for fault in self.faults if is_own(fault[0])]
    if self.series and not points and not faults:
      others = sorted(several)
      raise errors.InputError(
        f'none of the {len(self.points)} points is of series {uid}: they are of'
        f' {len(others)} others, such as {others[0][:64]}. Give the CT of one.'
      )
    return dataclasses.replace(self, points=points, faults=faults)


def read(path):
  """Reads a points file.

  Args:
    path: see above; what it is, its content says.

  Returns:
    `Points`; a row that cannot be used is a fault, the others are kept.

  Raises:
    errors.InputError: it cannot be read, has no points, or does not say what
      the numbers are.
  """
  try:
    text = tables.decode(path, files.read_bytes(path))
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read: {error.strerror}.'
    ) from error
  if text.lstrip().startswith(('{', '[')):
    found = point_lists.read(path, text)
    columns = point_columns.Columns(('x', 'y', 'z'), (0, 1, 2), (1, 1, 1))
    return _points(columns, found)
  return _of_table(path, text)


def _of_table(path, text):
  comments, lines = {}, []
  for line in text.split('\n'):
    if line.startswith('#'):
      match = _COMMENT.match(line)
      if match:
        comments[match[1].lower()] = match[2].strip()
    else:
      lines.append(line)
  header = comments.get('columns')
  if header:
    lines.insert(0, header)
  rows = tables.rows(path, '\n'.join(lines))
  if not rows:
    raise errors.InputError(
      f'{path} is empty: give a header, and a row a point.'
    )
  header = [name.lower() for name in rows[0]]
  columns = point_columns.find(
    path, header, frame=comments.get('coordinatesystem', '')
  )
  # 3D Slicer shows labels; its ids are those of its own scene.
  names = ('label', 'id') if 'columns' in comments else ('id',)
  id_at = next((header.index(name) for name in names if name in header), None)
  uid_at = point_columns.series(header)
  found = []
  for row in rows[1:]:
    cells = row + [''] * (len(header) - len(row))
    reason = _bad_cells(row, cells, header, columns.order)
    found.append(
      point_lists.Entry(
        name=cells[id_at] if id_at is not None else '',
        at=None if reason else [float(cells[k]) for k in columns.order],
        series_uid=cells[uid_at] if uid_at is not None else '',
        reason=reason,
      )
    )
  if not found:
    raise errors.InputError(f'{path} holds a header and no point.')
  return _points(columns, found)


def _points(columns, entries):
  """`Points` of entries whose numbers are as the columns say."""
  points, faults, series, used_ids = [], [], {}, set()
  for number, entry in enumerate(entries, 1):
    name = entry.name or str(number)
    reason = _bad_id(name, used_ids) or entry.reason
    # A name that is no id is not repeated: it could hold anything.
    shown = name if _ID.fullmatch(name) else f'row {number}'
    if entry.series_uid:
      series.setdefault(shown, entry.series_uid)
    if reason:
      faults.append((shown, reason))
      continue
    used_ids.add(name.casefold())
    at = tuple(
      x * sign for x, sign in zip(entry.at, columns.signs, strict=True)
    )
    points.append(Point(name, at))
  return Points(columns.names, points, faults, series)


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
