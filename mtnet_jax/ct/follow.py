"""From a point to a nodule in three dimensions, slice by slice.

The networks see one patch at a time. On the point's slice, the patch is
centred on the point, and once more on the mask found there where that is
elsewhere. From that slice the nodule is followed up and down, each time with
the patch centred on the mask of the slice before, until none overlaps it.

Of a mask, only one connected component counts: on the point's slice the one
that holds the point or comes nearest to it, on the others the one that overlaps
the slice before most. Masks elsewhere in the patch, such as that of another
nodule, are left out. A mask that reaches the edge of its patch, or is more than
half of it, is no outline but a leak (the coarse network sometimes marks
everything): it counts for no size, and no nodule is judged by it if there is
another slice. One of more than half of the patch is not followed.

All nodules are followed in step, so that their patches share batches.
"""

import dataclasses

import numpy as np

from mtnet_jax.ct import components
from mtnet_jax.ct import volume as ct_volume

# How far a mask is followed, up, down or sideways; nodules are at most 30 mm
# across.
MAX_REACH_MM = 30.0
# Share of the patch above which a mask is no outline.
MAX_SHARE = 0.5

# Patches in a call: one, so that none is computed in vain, or a full batch.
_SMALL, _LARGE = 1, 16
# Compiling the large batch does not pay for so few nodules.
_FEW = 4


@dataclasses.dataclass(frozen=True)
class Start:
  """Where a nodule is looked for.

  Attributes:
    voxel: (slice, row, column).
    fixed: whether the nodule is judged by this very patch, as one of the
      dataset is; else by that of the slice of its largest outline.
  """

  voxel: tuple[int, int, int]
  fixed: bool = False


@dataclasses.dataclass
class View:
  """One patch and the networks' outputs for it.

  Attributes:
    voxel: (slice, row, column) of its centre.
    hu: (64, 64) int16.
    fine, coarse: (64, 64) bool, whole masks.
    cam: (64, 64) float, class activation map; None where no nodule is judged by
      the patch.
    malignancy: probability.
    malignancy_members: of each output that was averaged; empty where none was.
    uncertainty: (64, 64) float, of the fine mask; None where none was averaged,
      or no nodule is judged by the patch.
  """

  voxel: tuple[int, int, int]
  hu: np.ndarray
  fine: np.ndarray
  coarse: np.ndarray
  cam: np.ndarray | None
  malignancy: float
  malignancy_members: tuple[float, ...] = ()
  uncertainty: np.ndarray | None = None


@dataclasses.dataclass
class Nodule:
  """What was found from a start.

  Attributes:
    view: the patch that the nodule is judged by: malignancy, figure.
    pixels: slice -> (n, 2) row and column of the mask's pixels there; empty
      where nothing was found, else the start's slice is among them.
    leaks: of these slices the ones whose mask is no outline.
    cut_off: whether the mask goes on where it was not followed.
    runs_away: whether that is farther from the start than any nodule reaches,
      such as along a vessel.
    notes: what a reader should know, a clause each.
    missing: slices that the mask may lack, because they are missing or broken.
    views: slice -> the patch that was looked at there, also on the slices where
      the mask was found to have ended.
  """

  view: View
  pixels: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
  leaks: set[int] = dataclasses.field(default_factory=set)
  cut_off: bool = False
  runs_away: bool = False
  notes: list[str] = dataclasses.field(default_factory=list)
  missing: list[ct_volume.SliceError] = dataclasses.field(default_factory=list)
  views: dict[int, View] = dataclasses.field(default_factory=dict)

  def missing_notes(self):
    """(clause, which files it is about, for the terminal only) of `missing`."""
    return [(f'the mask may be cut off: {e}', e.detail) for e in self.missing]

  def add(self, view, found):
    """Takes a (64, 64) mask of a view for that of its slice."""
    k = view.voxel[0]
    self.pixels[k] = components.pixels_of(view, found)
    self.leaks.discard(k)
    if _fills(found) or components.is_at_edge(found):
      self.leaks.add(k)


def _fills(found):
  """Whether a (64, 64) mask is too much of its patch to be an outline."""
  return found.mean() > MAX_SHARE


def follow(starts, volume, predict_fn, *, on_done=lambda: None):
  """Finds nodules.

  Args:
    starts: of `Start`.
    volume: `volume.Volume`.
    predict_fn: (N, 64, 64) HU -> a `prediction.Prediction` or
      `prediction.AveragedPrediction`; N is 1, or 16 where there are many
      starts, so that it is compiled once or twice.
    on_done: called for each that is finished.

  Returns:
    For each start a `Nodule`, or the `volume.SliceError` that ended it.
  """
  results = [None] * len(starts)
  searches = {i: _find(start, volume) for i, start in enumerate(starts)}
  replies = dict.fromkeys(searches)
  while searches:
    requests = {}  # search -> [(voxel, patch)]
    for i, search in list(searches.items()):
      try:
        requests[i] = search.send(replies[i])
        continue
      except StopIteration as stop:
        results[i] = stop.value
      except ct_volume.SliceError as error:
        results[i] = error
      del searches[i]
      on_done()
    cuts = sum(requests.values(), [])
    views = iter(_predict(cuts, predict_fn, many=len(starts) > _FEW))
    replies = {i: [next(views) for _ in cuts] for i, cuts in requests.items()}
  return results


def _predict(cuts, predict_fn, *, many):
  """Views of (voxel, patch) pairs, in full batches."""
  views = []
  while len(views) < len(cuts):
    remaining = cuts[len(views) :]
    # Half full, the large batch is not slower than several small ones.
    size = _LARGE if many and len(remaining) >= _LARGE // 2 else _SMALL
    part = remaining[:size]
    # The last batch is filled up to the compiled shape and cut again.
    filled = [part[min(i, len(part) - 1)][1] for i in range(size)]
    outputs = predict_fn(np.stack(filled))
    views += [
      View(
        voxel,
        hu,
        np.asarray(outputs.mask[i], bool),
        np.asarray(outputs.coarse_mask[i]) >= 0.5,
        np.asarray(outputs.cam[i], np.float32),
        float(outputs.malignancy[i]),
        *_disagreement(outputs, i),
      )
      for i, (voxel, hu) in enumerate(part)
    ]
  return views


def _disagreement(outputs, i):
  members = getattr(outputs, 'malignancy_members', None)
  if members is None:
    return (), None
  return tuple(members[:, i].tolist()), outputs.uncertainty[i]


def _cut(volume, voxel):
  return voxel, volume.patch(voxel)


def _find(start, volume):
  """One nodule's search: yields lists of (voxel, patch), is sent their views.

  Raises:
    ct_volume.SliceError: the slice of the start cannot be read.
  """
  first = start.voxel[0]
  (view,) = yield [_cut(volume, start.voxel)]
  nodule = Nodule(view, views={first: view})
  found, note = components.nearest(view, volume)
  if note:
    nodule.notes.append(note)
  if not found.any():
    return nodule
  pixels = components.pixels_of(view, found)
  if components.is_off(start.voxel, pixels) and not start.fixed:
    (again,) = yield [_cut(volume, components.centre(first, pixels))]
    moved = components.overlapping(again, pixels, volume)
    if moved.any():
      nodule.view = nodule.views[first] = again
      found = moved
  nodule.add(nodule.view, found)
  if not _fills(found):
    yield from _up_and_down(first, nodule, volume)
    if not start.fixed:
      yield from _judge_by_largest(nodule, volume)
  _note_leaks(
    nodule, first, 'fills' if _fills(found) else 'reaches the edge of'
  )
  # Of many points with many slices each they would fill the memory.
  for view in nodule.views.values():
    if view is not nodule.view:
      view.cam = view.uncertainty = None
  if {0, len(volume) - 1} & set(nodule.pixels) and len(volume) > 1:
    nodule.notes.append('the mask reaches the end of the series')
    nodule.cut_off = True
  return nodule


def _note_leaks(nodule, first, how):
  """Notes which slices count for no size.

  Args:
    nodule: changed in place.
    first: the slice of its start.
    how: what the mask does with the patch there, if it is no outline.
  """
  if first in nodule.leaks:
    nodule.notes.append(
      f"on the point's slice the mask {how} its patch, and is no outline:"
      ' sizes are not measured'
    )
  elif nodule.leaks:
    nodule.notes.append(
      'the mask reaches the edge of its patch, and is no outline, on'
      f' {len(nodule.leaks)} of {len(nodule.pixels)} slices: these count for no'
      ' size'
    )


def _up_and_down(first, nodule, volume):
  """Follows a mask up and down in step; fills the nodule."""
  last = {1: first, -1: first}  # step -> the slice that was reached
  start_mm = volume.to_mm(components.centre(first, nodule.pixels[first]))
  while last:
    requests = {}
    for step, k in list(last.items()):
      try:
        cut = _next(k, step, nodule.pixels[k], start_mm, volume)
        if cut is not None:
          requests[step] = cut
          continue
      except ct_volume.SliceError as error:
        nodule.missing.append(error)
      except _LimitError as limit:
        side = 'above' if step > 0 else 'below'
        nodule.notes.append(f'the mask is cut off {side}: {limit}')
        nodule.cut_off = nodule.runs_away = True
      del last[step]
    if not requests:
      break
    seen = yield list(requests.values())
    for step, view in zip(requests, seen, strict=True):
      found = components.overlapping(view, nodule.pixels[last[step]], volume)
      k = view.voxel[0]
      nodule.views[k] = view
      if _fills(found):
        nodule.notes.append(
          f'the mask is cut off: it fills the patch at z={volume.z_mm[k]:g} mm'
        )
        nodule.cut_off = True
      elif found.any():
        nodule.add(view, found)
        last[step] = k
        continue
      del last[step]


class _LimitError(Exception):
  """A mask that goes on farther than a nodule does."""


def _next(k, step, pixels, start_mm, volume):
  """The (voxel, patch) after slice `k`; None at the end of the series.

  Raises:
    ct_volume.SliceError: there should be a slice, and it cannot be read.
    _LimitError: it is too far from the start.
  """
  beside = volume.neighbour(k, step)
  if beside is None:
    return None
  voxel = components.centre(beside, pixels)
  x, y, z = np.abs(np.subtract(volume.to_mm(voxel), start_mm))
  if max(z, np.hypot(x, y)) > MAX_REACH_MM:
    raise _LimitError(f'it reaches farther than {MAX_REACH_MM:g} mm')
  return _cut(volume, voxel)


def _judge_by_largest(nodule, volume):
  """Takes the view of the largest outline's slice, centred on that mask.

  The training examples were cut like this.

  Args:
    nodule: changed in place.
    volume: `volume.Volume`.
  """
  slices = nodule.pixels.keys() - nodule.leaks or nodule.pixels
  # Of equal ones the lowest counts, as in the dataset.
  k = max(sorted(slices), key=lambda k: len(nodule.pixels[k]))
  nodule.view = nodule.views[k]
  if not components.is_off(nodule.view.voxel, nodule.pixels[k]):
    return
  (nodule.view,) = yield [_cut(volume, components.centre(k, nodule.pixels[k]))]
  nodule.views[k] = nodule.view
  found = components.overlapping(nodule.view, nodule.pixels[k], volume)
  if found.any() and not _fills(found):
    nodule.add(nodule.view, found)
  else:
    nodule.notes.append(
      'malignancy is judged by a patch in whose middle the networks mark'
      f' {"everything" if found.any() else "nothing"}: the mask there is of'
      ' the patch before'
    )
