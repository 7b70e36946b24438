"""Follows nodules from a point through the slices of a CT.

The networks see one patch at a time. On the point's slice, the first patch is
centred on the point. If the mask found there lies elsewhere, a second patch is
centred on that mask. From this slice the nodule is followed up and down: each
patch is centred on the mask of the previous slice, until no mask overlaps it.

Only one connected component of each mask counts: on the point's slice the one
that holds the point or comes nearest to it, on other slices the one that
overlaps the mask of the previous slice most. Other components, such as another
nodule, are left out.

A mask that reaches the edge of its patch, or fills more than half of it, is a
leak and no outline (the coarse network sometimes marks everything). Its slice
is not measured, and the nodule is judged by a leaking slice only if there is no
other. A mask that fills more than half of its patch is not followed.

All nodules are followed in lockstep, so that their patches share batches.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mtnet_jax.ct import components
from mtnet_jax.ct import views as views_lib
from mtnet_jax.ct import volume as ct_volume

if TYPE_CHECKING:
  from mtnet_jax.ct import model_protocol

# How far a mask is followed from the start, along z and within the plane.
# Nodules are at most 30 mm across.
MAX_REACH_MM = 30.0
# A mask that fills a larger share of its patch is no outline.
MAX_PATCH_SHARE = 0.5

# Numbers of patches in a call: one, so that none is computed in vain, or a full
# batch.
_SMALL, _LARGE = 1, 16
# For so few nodules, the large batch takes longer to compile than it saves.
_MAX_STARTS_FOR_SMALL = 4


@dataclasses.dataclass(frozen=True)
class Start:
  """Where the search for a nodule starts.

  Attributes:
    voxel: (slice, row, column).
    fixed: whether the nodule is judged by the patch around this voxel, like the
      nodules of the dataset, and not by the patch on the slice of its largest
      outline.
  """

  voxel: views_lib.Voxel
  fixed: bool = False


@dataclasses.dataclass
class Nodule:
  """The result of the search from a start.

  Attributes:
    view: the patch that the nodule is judged by: it gives the malignancy and
      the figure.
    pixels: slice -> (n, 2) row and column of the mask's pixels there; empty if
      nothing was found, otherwise it includes the start's slice.
    leaks: the slices in `pixels` whose mask is a leak and no outline.
    cut_off: whether the mask continues where it was not followed.
    runs_away: whether it continues farther from the start than any nodule
      reaches, such as along a vessel.
    notes: clauses that a user should know.
    missing: slices that the mask may lack, because they are missing or broken.
    views: slice -> the patch that was evaluated there, including the slices
      beyond the ends of the mask.
  """

  view: views_lib.View
  pixels: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
  leaks: set[int] = dataclasses.field(default_factory=set)
  cut_off: bool = False
  runs_away: bool = False
  notes: list[str] = dataclasses.field(default_factory=list)
  missing: list[ct_volume.SliceError] = dataclasses.field(default_factory=list)
  views: dict[int, views_lib.View] = dataclasses.field(default_factory=dict)

  def missing_notes(self) -> list[tuple[str, str]]:
    """A (note, detail) per missing slice; the detail is for the terminal only.

    It names files, whose paths could name a patient.
    """
    return [(f'the mask may be cut off: {e}', e.detail) for e in self.missing]

  def add(self, view: views_lib.View, mask: np.ndarray) -> None:
    """Sets the mask of a view's slice to a (64, 64) mask of its patch."""
    k = view.voxel[0]
    self.pixels[k] = components.to_pixels(view, mask)
    self.leaks.discard(k)
    if _fills(mask) or components.touches_edge(mask):
      self.leaks.add(k)


def _fills(mask):
  """Whether a (64, 64) mask fills too much of its patch to be an outline."""
  return mask.mean() > MAX_PATCH_SHARE


def follow(
  starts: Sequence[Start],
  volume: ct_volume.Volume,
  predict_fn: Callable[[np.ndarray], 'model_protocol.Prediction'],
  *,
  on_done: Callable[[], object] = lambda: None,
) -> list[Nodule | ct_volume.SliceError]:
  """Searches for a nodule at each start and follows it through the slices.

  Args:
    starts: where to search.
    volume: the CT.
    predict_fn: (N, 64, 64) HU -> predictions. N is 1, or 16 if there are many
      starts, so that it is compiled at most twice.
    on_done: called after each start that is finished.

  Returns:
    For each start a `Nodule`, or the error that ended the search.
  """
  results: dict[int, Nodule | ct_volume.SliceError] = {}
  searches = {i: _search(start, volume) for i, start in enumerate(starts)}
  # A generator's first `send` must be of None.
  replies: dict[int, list[views_lib.View] | None] = dict.fromkeys(searches)
  while searches:
    requests = {}  # start -> [(voxel, patch)]
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
    cuts = [cut for request in requests.values() for cut in request]
    many = len(starts) > _MAX_STARTS_FOR_SMALL
    views = iter(_predict(cuts, predict_fn, many=many))
    replies = {i: [next(views) for _ in cuts] for i, cuts in requests.items()}
  return [results[i] for i in range(len(starts))]


def _predict(cuts, predict_fn, *, many):
  """The views of (voxel, patch) pairs, predicted in batches of two sizes."""
  views = []
  while len(views) < len(cuts):
    remaining = cuts[len(views) :]
    # A half-full large batch is not slower than several small ones.
    size = _LARGE if many and len(remaining) >= _LARGE // 2 else _SMALL
    part = remaining[:size]
    # The last batch is padded with its last patch to the compiled shape.
    padded = [part[min(i, len(part) - 1)][1] for i in range(size)]
    outputs = predict_fn(np.stack(padded))
    views += [
      views_lib.View(
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
  """`malignancy_members` and `uncertainty` of the view of patch `i`."""
  members = getattr(outputs, 'malignancy_members', None)
  if members is None:
    return (), None
  return tuple(members[:, i].tolist()), outputs.uncertainty[i]


def _cut(volume, voxel):
  """A voxel and the patch around it."""
  return voxel, volume.patch(voxel)


def _search(start, volume):
  """The search for one nodule, as a generator.

  Yields lists of (voxel, patch) and is sent the list of their views; returns
  the `Nodule`.

  Raises:
    ct_volume.SliceError: the slice of the start cannot be read.
  """
  first = start.voxel[0]
  (view,) = yield [_cut(volume, start.voxel)]
  nodule = Nodule(view, views={first: view})
  mask, note = components.nearest(view, volume)
  if note:
    nodule.notes.append(note)
  if not mask.any():
    return nodule
  pixels = components.to_pixels(view, mask)
  if components.is_off_centre(start.voxel, pixels) and not start.fixed:
    (centred,) = yield [_cut(volume, components.centre(first, pixels))]
    centred_mask = components.overlapping(centred, pixels, volume)
    if centred_mask.any():
      nodule.view = nodule.views[first] = centred
      mask = centred_mask
  nodule.add(nodule.view, mask)
  if not _fills(mask):
    yield from _up_and_down(first, nodule, volume)
    if not start.fixed:
      yield from _judge_by_largest(nodule, volume)
  _note_leaks(nodule, first, 'fills' if _fills(mask) else 'reaches the edge of')
  # The maps of many points with many slices each would fill the memory.
  for view in nodule.views.values():
    if view is not nodule.view:
      view.cam = view.uncertainty = None
  if {0, len(volume) - 1} & set(nodule.pixels) and len(volume) > 1:
    nodule.notes.append('the mask reaches the end of the series')
    nodule.cut_off = True
  return nodule


def _note_leaks(nodule, first, how):
  """Adds a note on the slices that are not measured.

  Args:
    nodule: changed in place.
    first: the slice of its start.
    how: what the mask does to its patch there, if it is no outline.
  """
  if first in nodule.leaks:
    nodule.notes.append(
      f"on the point's slice the mask {how} its patch and is no outline: sizes"
      ' are not measured'
    )
  elif nodule.leaks:
    nodule.notes.append(
      'the mask reaches the edge of its patch and is no outline on'
      f' {len(nodule.leaks)} of {len(nodule.pixels)} slices: these are not'
      ' measured'
    )


def _up_and_down(first, nodule, volume):
  """Follows the mask up and down in lockstep, and adds to the nodule.

  A generator like `_search`.
  """
  last = {1: first, -1: first}  # direction -> the last slice with a mask
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
    views = yield list(requests.values())
    for step, view in zip(requests, views, strict=True):
      mask = components.overlapping(view, nodule.pixels[last[step]], volume)
      k = view.voxel[0]
      nodule.views[k] = view
      if _fills(mask):
        nodule.notes.append(
          f'the mask is cut off: it fills the patch at z={volume.z_mm[k]:g} mm'
        )
        nodule.cut_off = True
      elif mask.any():
        nodule.add(view, mask)
        last[step] = k
        continue
      del last[step]


class _LimitError(Exception):
  """A mask continues farther than any nodule reaches."""


def _next(k, step, pixels, start_mm, volume):
  """The (voxel, patch) after slice `k`; None at the end of the series.

  Args:
    k: a slice.
    step: 1 for upwards, -1 for downwards.
    pixels: (n, 2) pixels of the mask on slice `k`.
    start_mm: (x, y, z) where the search began.
    volume: the CT.

  Raises:
    ct_volume.SliceError: the next slice is missing or cannot be read.
    _LimitError: the next patch is too far from the start.
  """
  neighbour = volume.neighbour(k, step)
  if neighbour is None:
    return None
  voxel = components.centre(neighbour, pixels)
  x, y, z = np.abs(np.subtract(volume.to_mm(voxel), start_mm))
  if max(z, np.hypot(x, y)) > MAX_REACH_MM:
    raise _LimitError(f'it reaches farther than {MAX_REACH_MM:g} mm')
  return _cut(volume, voxel)


def _judge_by_largest(nodule, volume):
  """Sets the nodule's view to the slice of its largest outline.

  The patch is centred on the mask there, like the training examples. A
  generator like `_search`.

  Args:
    nodule: changed in place.
    volume: the CT.
  """
  slices = nodule.pixels.keys() - nodule.leaks or nodule.pixels
  # Among equally large outlines the lowest wins, as in the dataset.
  k = max(sorted(slices), key=lambda k: len(nodule.pixels[k]))
  nodule.view = nodule.views[k]
  if not components.is_off_centre(nodule.view.voxel, nodule.pixels[k]):
    return
  (nodule.view,) = yield [_cut(volume, components.centre(k, nodule.pixels[k]))]
  nodule.views[k] = nodule.view
  mask = components.overlapping(nodule.view, nodule.pixels[k], volume)
  if mask.any() and not _fills(mask):
    nodule.add(nodule.view, mask)
  else:
    nodule.notes.append(
      'in the patch that malignancy is judged by, the networks mark'
      f' {"everything" if mask.any() else "nothing"} at the centre: the mask of'
      ' this slice comes from the previous patch'
    )
