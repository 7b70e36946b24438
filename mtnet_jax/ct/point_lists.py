"""Points of JSON files: 3D Slicer's markups, boxes of MONAI's detection.

Slicer: `markups` of `controlPoints`, in the coordinate system that each names
(LPS where it names none, as its schema has it). MONAI: lists of `image` and
`box`, centre and size in mm, as its LUNA16 files; with `box_mode` xyzxyz
corners. An image whose name holds a series UID is of that series only.
"""

import json
import math
from typing import NamedTuple

from mtnet_jax.ct import point_columns
from mtnet_jax.ct import volume
from mtnet_jax.system import errors

_MODES = ('cccwhd', 'xyzxyz')


class Entry(NamedTuple):
  """One point as a file has it.

  Attributes:
    name: its id; '' where it has none.
    at: three numbers; None where there is a reason.
    series_uid: of its series; '' where the file does not say.
    reason: why it cannot be used.
  """

  name: str
  at: list[float] | None
  series_uid: str = ''
  reason: str | None = None


def read(path, text):
  """Reads the points of a JSON file.

  Args:
    path: for messages.
    text: of the file.

  Returns:
    A list of `Entry`, in mm, LPS.

  Raises:
    errors.InputError: it is damaged, of another kind, or has no point.
  """
  try:
    tree = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise errors.InputError(f'{path} is damaged JSON: {error}.') from error
  with errors.of_wrong_values(
    f'{path} is neither 3D Slicer markups nor a list of boxes',
    way_out='Give points as a CSV file.',
  ):
    if isinstance(tree, dict) and 'markups' in tree:
      found = _of_markups(path, tree['markups'])
    else:
      found = _of_boxes(path, tree)
  if not found:
    raise errors.InputError(f'{path} holds no point.')
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
      at, reason = _numbers(point['position'], 3)
      if at:
        signs = point_columns.SIGNS[frame]
        at = [x * sign for x, sign in zip(at, signs, strict=True)]
      found.append(Entry(name, at, reason=reason))
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
      at = None
      if numbers and mode == 'xyzxyz':
        at = [
          (a + b) / 2 for a, b in zip(numbers[:3], numbers[3:], strict=True)
        ]
      elif numbers:
        at = numbers[:3]
        if min(numbers[3:]) <= 0:
          at, reason = None, 'its box has no size: is it given by corners?'
      found.append(Entry('', at, uid[0] if uid else '', reason))
  return found


def _numbers(values, count):
  """(numbers, None), or (None, why they are none)."""
  try:
    numbers = [float(value) for value in values]
  except (TypeError, ValueError):
    return None, 'its coordinates are no numbers'
  if len(numbers) != count:
    return None, f'it has {len(numbers)} numbers, not {count}'
  if not all(map(math.isfinite, numbers)):
    return None, 'its coordinates are not finite'
  return numbers, None
