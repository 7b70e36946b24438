"""Finds the coordinates among the columns of a table of points."""

from collections.abc import Sequence
import os
import re
from typing import NamedTuple

from mtnet_jax.system import errors

# Column names without units -> their order in `points.Point.coordinates`, and
# the frame that the names imply; '' if they imply none.
_SYSTEMS: dict[tuple[str, str, str], tuple[tuple[str, str, str], str]] = {
  ('x', 'y', 'z'): (('x', 'y', 'z'), ''),
  ('l', 'p', 's'): (('l', 'p', 's'), 'LPS'),
  ('r', 'a', 's'): (('r', 'a', 's'), 'RAS'),
  ('row', 'col', 'slice'): (('slice', 'row', 'col'), 'voxels'),
  ('i', 'j', 'k'): (('k', 'j', 'i'), 'voxels'),
}
# Frame -> factors that convert its coordinates to LPS; voxels stay as they are.
SIGNS: dict[str, tuple[int, int, int]] = {
  'LPS': (1, 1, 1),
  'RAS': (-1, -1, 1),
  'voxels': (1, 1, 1),
}
_WANTED = 'x,y,z (mm) or row,col,slice or i,j,k (voxels)'
# Such as 'coordX', 'pos_x', 'x (mm)', 'x [mm, RAS]' and 'x_mm', in lower case.
_NAME = re.compile(
  r'(?:(?:coord|pos|position|center|centre)[ _.-]*)?'
  r'(x|y|z|l|p|s|r|a|row|col|slice|i|j|k)'
  r'(?:[ _]*[\[(]([^\])]*)[\])]|_(mm|ras|lps))?'
)
_SERIES = (
  'seriesuid',
  'series_uid',
  'seriesinstanceuid',
  'series instance uid',
)
# 3D Slicer's coordinate systems; older versions write numbers.
_FRAMES = {'': '', '0': 'RAS', '1': 'LPS', 'RAS': 'RAS', 'LPS': 'LPS'}


class Columns(NamedTuple):
  """The three columns of coordinates.

  Attributes:
    names: names without units.
    order: indices of the columns, in the order of `points.Point.coordinates`.
    signs: factors that convert the coordinates to LPS.
  """

  names: tuple[str, str, str]
  order: tuple[int, int, int]
  signs: tuple[int, int, int]


def find(
  path: str | os.PathLike[str], header: Sequence[str], *, frame: str = ''
) -> Columns:
  """Finds the columns of coordinates.

  Args:
    path: the file, for messages.
    header: names of columns, in lower case.
    frame: the file's coordinate system: LPS, RAS, 3D Slicer's number for one of
      them, or '' if the file does not name it.

  Raises:
    errors.InputError: there are no such columns or several sets of them, or
      their unit or frame is unknown or contradictory.
  """
  known = [(k, *_known(name)) for k, name in enumerate(header)]
  known = [(k, name, unit) for k, name, unit in known if name]
  names = [name for _, name, _ in known]
  found = [system for system in _SYSTEMS if set(system) <= set(names)]
  if len(found) > 1:
    raise errors.InputError(
      f'{path} has both {" and ".join(map(",".join, found))}: keep one set.'
    )
  if not found:
    shown = ','.join(header)
    raise errors.InputError(
      f'{path} has the columns {shown[:60]!r}: it needs a header with'
      f' {_WANTED}.'
    )
  system = found[0]
  for name in system:
    if names.count(name) > 1:
      raise errors.InputError(f'{path} has the column {name} twice: keep one.')
  if header.count('id') > 1:
    raise errors.InputError(f'{path} has the column id twice: keep one.')
  names_in_order, implied = _SYSTEMS[system]
  frames = {_frame_of(path, unit) for _, name, unit in known if name in system}
  frames = (frames | {implied, _file_frame(path, frame)}) - {''}
  if len(frames) > 1:
    raise errors.InputError(
      f'{path} calls its coordinates {" and ".join(sorted(frames))}: keep one'
      ' name.'
    )
  indices = {name: k for k, name, _ in known}
  (frame,) = frames or {'LPS'}
  first, second, third = (indices[name] for name in names_in_order)
  return Columns(system, (first, second, third), SIGNS[frame])


def in_mm(names: tuple[str, str, str]) -> bool:
  """Whether columns are patient coordinates in mm, and not voxel indices."""
  return _SYSTEMS[names][1] != 'voxels'


def series(header: Sequence[str]) -> int | None:
  """The index of the column of series UIDs; None if there is none."""
  return next((header.index(name) for name in _SERIES if name in header), None)


def _known(name):
  """(coordinate, unit) of a column's name; (None, '') for other columns."""
  match = _NAME.fullmatch(name)
  if not match:
    return None, ''
  return match[1], (match[2] or match[3] or '').strip()


def _frame_of(path, unit):
  """The frame in the text after a column's name: 'LPS', 'RAS' or ''."""
  frame = ''
  for word in re.findall(r'[a-z]+', unit):
    if word in ('ras', 'lps'):
      frame = word.upper()
    elif word not in ('mm', 'millimeter', 'millimetre', 'voxel', 'index', 'px'):
      raise errors.InputError(
        f'{path} has coordinates in {word[:20]!r}: convert them to {_WANTED}.'
      )
  return frame


def _file_frame(path, frame):
  """The frame that a file of 3D Slicer names: 'LPS', 'RAS' or ''."""
  if frame.upper() not in _FRAMES:
    raise errors.InputError(
      f'{path} has the coordinate system {frame[:20]!r}: save it in LPS or RAS.'
    )
  return _FRAMES[frame.upper()]
