"""What the columns of a table of points are: which numbers, in which frame."""

import re
from typing import NamedTuple

from mtnet_jax.system import errors

# Names without units -> the coordinates in the order of `points.Point.at`, and
# the frame that the names say.
_SYSTEMS = {
  ('x', 'y', 'z'): (('x', 'y', 'z'), ''),
  ('l', 'p', 's'): (('l', 'p', 's'), 'LPS'),
  ('r', 'a', 's'): (('r', 'a', 's'), 'RAS'),
  ('row', 'col', 'slice'): (('slice', 'row', 'col'), 'voxels'),
  ('i', 'j', 'k'): (('k', 'j', 'i'), 'voxels'),
}
# By which coordinates of a frame are multiplied to become LPS.
SIGNS = {'LPS': (1, 1, 1), 'RAS': (-1, -1, 1), 'voxels': (1, 1, 1)}
_WANTED = 'x,y,z (mm) or row,col,slice or i,j,k (voxels)'
# 'coordX', 'pos_x', 'x (mm)', 'x [mm, RAS]', 'x_mm'.
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
# Of a file of 3D Slicer: numbers in old ones.
_FRAMES = {'': '', '0': 'RAS', '1': 'LPS', 'RAS': 'RAS', 'LPS': 'LPS'}


class Columns(NamedTuple):
  """The three columns of coordinates.

  Attributes:
    names: as they are called, without units.
    order: where they are, in the order of `points.Point.at`.
    signs: by which they are multiplied to become LPS.
  """

  names: tuple[str, str, str]
  order: tuple[int, int, int]
  signs: tuple[int, int, int]


def find(path, header, *, frame=''):
  """Finds the columns of coordinates.

  Args:
    path: for messages.
    header: names of columns, in lower case.
    frame: what the file says of all of them: LPS, RAS, or ''.

  Returns:
    `Columns`.

  Raises:
    errors.InputError: there are none, several, or the unit is another.
  """
  known = [(k, *_known(name)) for k, name in enumerate(header)]
  known = [(k, name, unit) for k, name, unit in known if name]
  names = [name for _, name, _ in known]
  found = [system for system in _SYSTEMS if set(system) <= set(names)]
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
  system = found[0]
  for name in system:
    if names.count(name) > 1:
      raise errors.InputError(f'{path} has the column {name} twice: keep one.')
  if header.count('id') > 1:
    raise errors.InputError(f'{path} has the column id twice: keep one.')
  at, stated = _SYSTEMS[system]
  frames = {_frame_of(path, unit) for _, name, unit in known if name in system}
  frames = (frames | {stated, _file_frame(path, frame)}) - {''}
  if len(frames) > 1:
    raise errors.InputError(
      f'{path} calls its coordinates {" and ".join(sorted(frames))}: say one.'
    )
  places = {name: k for k, name, _ in known}
  (frame,) = frames or {'LPS'}
  order = tuple(places[name] for name in at)
  return Columns(system, order, SIGNS[frame])


def in_mm(names):
  """Whether columns are patient coordinates, and not voxel indices."""
  return _SYSTEMS[names][1] != 'voxels'


def series(header):
  """Where the column of series UIDs is; None where there is none."""
  return next((header.index(name) for name in _SERIES if name in header), None)


def _known(name):
  """The name of a coordinate without its unit, and the unit."""
  match = _NAME.fullmatch(name)
  if not match:
    return None, ''
  return match[1], (match[2] or match[3] or '').strip()


def _frame_of(path, unit):
  """'LPS', 'RAS' or '' of what stands behind a name."""
  frame = ''
  for word in re.findall(r'[a-z]+', unit):
    if word in ('ras', 'lps'):
      frame = word.upper()
    elif word not in ('mm', 'millimeter', 'millimetre', 'voxel', 'index', 'px'):
      raise errors.InputError(
        f'{path} has coordinates in {word[:20]!r}: give {_WANTED}.'
      )
  return frame


def _file_frame(path, frame):
  if frame.upper() not in _FRAMES:
    raise errors.InputError(
      f'{path} has the coordinate system {frame[:20]!r}: save it in LPS or RAS.'
    )
  return _FRAMES[frame.upper()]
