"""Reads points of JSON files: 3D Slicer's markups, MONAI's detection boxes.

3D Slicer: `markups` with `controlPoints`. Each markup may name its coordinate
system, which is LPS by default, as in Slicer's schema.

MONAI: lists of `image` and `box` like MONAI's LUNA16 files. A box has a centre
and a size in mm, or two corners if `box_mode` is xyzxyz. If the name of an
image holds a series UID, its boxes belong to that series only.
"""

from collections.abc import Iterable
import json
import math
import os
from typing import NamedTuple

from mtnet_jax.ct import point_columns
from mtnet_jax.ct import volume
from mtnet_jax.system import errors

_MODES = ('cccwhd', 'xyzxyz')


class Entry(NamedTuple):
  """One point of a file.

  Attributes:
    name: its id; '' if it has none.
    coordinates: three numbers; None if there is a reason.
    series_uid: UID of its series; '' if the file does not name it.
    reason: why the point cannot be used; None if it can.
  """

  name: str
  coordinates: list[float] | None
  series_uid: str = ''
  reason: str | None = None


def read(path: str | os.PathLike[str], text: str) -> list[Entry]:
  """Reads the points of a JSON file.

  Args:
    path: the file, for messages.
    text: content of the file.

  Returns:
    The points, in mm (LPS).

  Raises:
    errors.InputError: the file is damaged, is of another kind or has no point.
  """
  try:
    tree = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise errors.InputError(
      f'{path} is damaged JSON ({error}): save it again.'
    ) from error
  with errors.of_wrong_values(
    f'{path} is neither 3D Slicer markups nor a list of boxes',
    way_out='Give points as a CSV file.',
  ):
    if isinstance(tree, dict) and 'markups' in tree:
      found = _of_markups(path, tree['markups'])
    else:
      found = _of_boxes(path, tree)
  if not found:
    raise errors.InputError(f'{path} holds no point: add at least one.')
  return found


def _of_markups(path, markups):
  found = []
  for markup in markups:
    frame = str(markup.get('coordinateSystem', 'LPS')).upper()
    units = markup.get('coordinateUnits', 'mm')
    units = set(units) if isinstance(units, list) else {units}
    if frame not in ('LPS', 'RAS') or units != {'mm'}:
      raise errors.InputError(
        f'{path} has markups in {frame[:20]!r} and {sorted(map(str, units))}:'
        ' save them in LPS or RAS, in mm.'
      )
    for point in markup['controlPoints']:
      if point.get('positionStatus', 'defined') != 'defined':
        continue
      name = str(point.get('label') or point.get('id') or '')
      coordinates, reason = _numbers(point['position'], 3)
      if coordinates:
        signs = point_columns.SIGNS[frame]
        coordinates = [
          x * sign for x, sign in zip(coordinates, signs, strict=True)
        ]
      found.append(Entry(name, coordinates, reason=reason))
  return found


def _of_boxes(path, tree):
  mode = 'cccwhd'
  if isinstance(tree, dict):
    mode = str(tree.get('box_mode') or tree.get('gt_box_mode') or mode)
    lists = [x for x in tree.values() if isinstance(x, list)]
    if 'box' in tree:
      lists = [[tree]]
  else:
    lists = [tree]
  if mode not in _MODES:
    raise errors.InputError(
      f'{path} has boxes in the mode {mode[:20]!r}: save them as'
      f' {" or ".join(_MODES)}.'
    )
  images = [image for images in lists for image in images]
  found = []
  for image in images:
    uid = volume.UID.search(str(image.get('image', '')))
    for box in image['box']:
      numbers, reason = _numbers(box, 6)
      centre = None
      if numbers and mode == 'xyzxyz':
        centre = [
          (a + b) / 2 for a, b in zip(numbers[:3], numbers[3:], strict=True)
        ]
      elif numbers:
        centre = numbers[:3]
        if min(numbers[3:]) <= 0:
          centre, reason = None, 'its box has no size: is it given by corners?'
      found.append(Entry('', centre, uid[0] if uid else '', reason))
  return found


def _numbers(
  values: Iterable[str | float], count: int
) -> tuple[list[float] | None, str | None]:
  """(`count` finite numbers, None), or (None, why the values are not)."""
  try:
    numbers = [float(value) for value in values]
  except (TypeError, ValueError):
    return None, 'its coordinates are not numbers'
  if len(numbers) != count:
    return None, f'it has {len(numbers)} numbers, not {count}'
  if not all(map(math.isfinite, numbers)):
    return None, 'its coordinates are not finite'
  return numbers, None
