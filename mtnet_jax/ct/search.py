"""Looks with a model for the nodules at places, and doubts what it finds."""

import functools
import importlib
import threading

import tqdm

from mtnet_jax.ct import follow
from mtnet_jax.ct import places as places_lib

# A point below lies outside of the body, or in a large airway.
_AIR_HU = -950


def find(places, volume, model, *, show_progress=True):
  """Finds the nodules at places.

  Args:
    places: of `places.Place`.
    volume: `volume.Volume`.
    model: `model.Model`, or several as one.
    show_progress: whether to show a bar on a terminal.

  Returns:
    A list of (place, nodule), and one of (id, error) of the other places.
  """
  # While the networks compute, the interpreter has time to import what draws:
  # Matplotlib takes a second.
  threading.Thread(
    target=importlib.import_module, args=('mtnet_jax.ct.results',), daemon=True
  ).start()
  starts = [
    follow.Start(place.voxel, fixed=place.truth is not None) for place in places
  ]
  predict_fn = functools.partial(
    model.predict, pixel_spacing_mm=volume.pixel_spacing_mm
  )
  with tqdm.tqdm(
    total=len(starts),
    desc='nodules',
    unit='nodule',
    leave=False,
    disable=None if show_progress else True,  # None: on a terminal only
  ) as bar:
    results = follow.follow(starts, volume, predict_fn, on_done=bar.update)
  nodules, faults = [], []
  for place, result in zip(places, results, strict=True):
    if isinstance(result, follow.Nodule):
      nodules.append((place, result))
    else:
      faults.append((place.place_id, result))
  return nodules, faults


def notes_on_frame(nodules, volume, model):
  """Whether points that all mark nothing would mark something as RAS.

  Args:
    nodules: of `find`, at points whose mm were taken for LPS.
    volume, model: as for `find`.

  Returns:
    A list of at most one clause.
  """
  if not nodules or any(_marks(nodule) for _, nodule in nodules):
    return []
  others = places_lib.mirrored([place for place, _ in nodules], volume)
  found, _ = find(others, volume, model)
  count = sum(_marks(nodule) for _, nodule in found)
  if not count:
    return []
  return [
    'no point marks anything as x,y,z in LPS; with the signs of x and y changed'
    f' {count} of {len(nodules)} do: if the points are RAS, as those of NIfTI'
    ' and 3D Slicer, call the columns r,a,s'
  ]


def _marks(nodule):
  """Whether a nodule was found, in something that is no air."""
  hu = nodule.view.hu
  middle = hu[tuple(slice(side // 2 - 2, side // 2 + 2) for side in hu.shape)]
  return bool(nodule.pixels) and middle.max() > _AIR_HU
