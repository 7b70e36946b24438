"""Finds the nodules at places with a model."""

from collections.abc import Sequence
import functools
import importlib
import threading
from typing import TYPE_CHECKING

import tqdm

from mtnet_jax.ct import follow
from mtnet_jax.ct import places as places_lib
from mtnet_jax.ct import volume as ct_volume

if TYPE_CHECKING:
  from mtnet_jax.ct import model_protocol

# Where no value is higher, the point is outside of the body or in an airway.
_AIR_HU = -950

_Found = tuple[places_lib.Place, follow.Nodule]


def find(
  places: Sequence[places_lib.Place],
  volume: ct_volume.Volume,
  model: 'model_protocol.Model',
  *,
  show_progress: bool = True,
) -> tuple[list[_Found], list[places_lib.Fault]]:
  """Finds the nodules at places.

  Args:
    places: where to search.
    volume: the CT.
    model: a model, or several as one.
    show_progress: whether to show a progress bar on a terminal.

  Returns:
    A list of (place, nodule), and the faults of the other places.
  """
  # Matplotlib takes a second to import, which is hidden while networks compute.
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
  nodules: list[_Found] = []
  faults: list[places_lib.Fault] = []
  for place, result in zip(places, results, strict=True):
    if isinstance(result, follow.Nodule):
      nodules.append((place, result))
    else:
      faults.append((place.place_id, result))
  return nodules, faults


def notes_on_frame(
  nodules: Sequence[_Found],
  volume: ct_volume.Volume,
  model: 'model_protocol.Model',
) -> list[str]:
  """Checks whether points without a nodule would have one if they were RAS.

  Args:
    nodules: from `find`, at points whose positions were read as LPS.
    volume: as for `find`.
    model: as for `find`.

  Returns:
    A list of one note if so, else an empty list.
  """
  if not nodules or any(_is_in_tissue(nodule) for _, nodule in nodules):
    return []
  others = places_lib.mirrored([place for place, _ in nodules], volume)
  found, _ = find(others, volume, model)
  count = sum(_is_in_tissue(nodule) for _, nodule in found)
  if not count:
    return []
  return [
    'no nodule is found at any point, read as x,y,z in LPS; with the signs of x'
    f' and y changed, {count} of {len(nodules)} points have one: if the points'
    ' are RAS, as in NIfTI and 3D Slicer, call the columns r,a,s'
  ]


def _is_in_tissue(nodule):
  """Whether a nodule was found, and its centre is not air."""
  hu = nodule.view.hu
  middle = hu[tuple(slice(side // 2 - 2, side // 2 + 2) for side in hu.shape)]
  return bool(nodule.pixels) and middle.max() > _AIR_HU
