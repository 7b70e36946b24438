"""Reads the points file of `predict`, as spreadsheets and tools write it.

It is a CSV file with a header (or `# columns`, as in 3D Slicer's .fcsv), a
markups file of 3D Slicer (.mrk.json) or a list of boxes of MONAI (.json).

The columns of a table are recognised by their names:

* `x,y,z`: patient coordinates in mm, LPS as in DICOM; also `x (mm)`, or
  `coordX` as in LUNA16;
* `r,a,s` or `x (RAS)`: patient coordinates of NIfTI and 3D Slicer;
* `row,col,slice` or `i,j,k` (i is the column, j the row, k the slice): voxel
  indices from 0, where slice 0 has the lowest z;
* `id`: names of the points, which are 1, 2, ... by default;
* `seriesuid`: the series that a row belongs to.

Other columns are ignored.
"""

from collections.abc import Iterable
import dataclasses
import math
import os
import re
from typing import NamedTuple

from mtnet_jax.ct import point_columns
from mtnet_jax.ct import point_lists
from mtnet_jax.ct import tables
from mtnet_jax.storage import files
from mtnet_jax.system import errors

# Ids become names of files: no separators, no leading dot, ASCII only.
_ID = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]{0,63}')
_COMMENT = re.compile(r'#\s*([A-Za-z ]+?)\s*=\s*(.*)')


class Point(NamedTuple):
  """A point.

  Attributes:
    point_id: its id, which is also a valid name of a file.
    coordinates: (x, y, z) in mm, LPS, or (slice, row, column).
  """

  point_id: str
  coordinates: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Points:
  """The content of a points file.

  Attributes:
    columns: names of the three columns of coordinates.
    points: in the order of the file.
    faults: (name of the point, reason) of each row that cannot be used.
    series: name of the point -> UID of its series, if the file names it.
  """

  columns: tuple[str, str, str]
  points: list[Point]
  faults: list[tuple[str, str]]
  series: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def in_mm(self) -> bool:
    """Whether the points are patient coordinates, and not voxel indices."""
    return point_columns.in_mm(self.columns)

  def of_series(self, uid: str) -> 'Points':
    """The points that belong to a series.

    Points for which the file names no series belong to any series.

    Args:
      uid: UID of the series; '' if it is not known.

    Raises:
      errors.InputError: all points belong to other series; or `uid` is not
        known, and the file names several series.
    """
    several = set(self.series.values())
    if not uid:
      if len(several) > 1:
        raise errors.InputError(
          f'the points are of {len(several)} series, and the CT does not name'
          ' its own: name its file after its series UID, or keep only the rows'
          ' of this series.'
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


def read(path: str | os.PathLike[str]) -> Points:
  """Reads a points file, whose format is recognised by its content.

  Args:
    path: the file, see the module's docstring.

  Returns:
    The points. A row that cannot be used becomes a fault.

  Raises:
    errors.InputError: the file cannot be read, has no points, or does not tell
      what its numbers are.
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
  """The `Points` of a CSV file or an .fcsv file."""
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
      f'{path} is empty: it needs a header, and a row for each point.'
    )
  header = [name.lower() for name in rows[0]]
  columns = point_columns.find(
    path, header, frame=comments.get('coordinatesystem', '')
  )
  # In 3D Slicer's files, users know the labels; the ids are internal.
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
        coordinates=None
        if reason
        else [float(cells[k]) for k in columns.order],
        series_uid=cells[uid_at] if uid_at is not None else '',
        reason=reason,
      )
    )
  if not found:
    raise errors.InputError(
      f'{path} holds a header and no point: add a row for each point.'
    )
  return _points(columns, found)


def _points(
  columns: point_columns.Columns, entries: Iterable[point_lists.Entry]
) -> Points:
  """Converts entries to points in LPS or voxels, and checks their names."""
  points: list[Point] = []
  faults: list[tuple[str, str]] = []
  series: dict[str, str] = {}
  used_ids: set[str] = set()
  for number, entry in enumerate(entries, 1):
    name = entry.name or str(number)
    reason = _bad_id(name, used_ids) or entry.reason
    # An invalid name is not shown, because it could hold anything.
    shown = name if _ID.fullmatch(name) else f'row {number}'
    if entry.series_uid:
      series.setdefault(shown, entry.series_uid)
    if reason:
      faults.append((shown, reason))
      continue
    used_ids.add(name.casefold())
    assert entry.coordinates is not None  # They are there without a reason.
    first, second, third = (
      x * sign for x, sign in zip(entry.coordinates, columns.signs, strict=True)
    )
    points.append(Point(name, (first, second, third)))
  return Points(columns.names, points, faults, series)


def _bad_id(name, used_ids):
  """Why a name cannot be an id, or None."""
  if not _ID.fullmatch(name):
    return (
      'its id becomes the name of a file: use at most 64 of A-Z, a-z, 0-9, and'
      ' . _ - except at the start'
    )
  if name.casefold() in used_ids:
    return 'its id is taken by an earlier point'
  return None


def _bad_cells(row, cells, header, order):
  """Why a row has no coordinates, or None."""
  if len(row) > len(header):
    return f'its row has {len(row)} cells, but the header has {len(header)}'
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
