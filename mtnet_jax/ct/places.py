"""Places in a CT to look at: points of a file, or the dataset's own nodules."""

from typing import Any
from typing import NamedTuple

import numpy as np

from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.system import errors


class Place(NamedTuple):
  """One place.

  Attributes:
    place_id: also the name of its files.
    voxel: (slice, row, column), the nearest voxel.
    position_mm: (x, y, z) as given, or of the voxel.
    truth: (64, 64) bool, the readers' mask around the voxel; None if unknown.
    readers: their ratings and sizes, for the record; empty if unknown.
    patient_id: as in LIDC-IDRI; '' if unknown. It is for comparison, and goes
      nowhere.
  """

  place_id: str
  voxel: tuple[int, int, int]
  position_mm: tuple[float, float, float]
  truth: np.ndarray | None = None
  readers: dict[str, Any] = {}
  patient_id: str = ''


def of_points(points, volume):
  """The places of a points file.

  Args:
    points: `points.Points`.
    volume: `volume.Volume`.

  Returns:
    A list of `Place`, and one of (id, `volume.PlaceError`) of the rows that
    cannot be used and of the points that are no place of the volume.

  Raises:
    errors.InputError: all lie outside, or voxels are given for a series that
      misses slices.
  """
  if not points.in_mm and volume.misses_slices:
    raise errors.InputError(
      f'series {volume.series_uid} misses slices, so that their numbers cannot'
      ' be told: give the points in mm, as x,y,z.'
    )
  found, faults = [], []
  for point in points.points:
    try:
      found.append(_place(point, points.in_mm, volume))
    except ct_volume.PlaceError as error:
      faults.append((point.point_id, error))
  outside = [isinstance(e, ct_volume.OutsideError) for _, e in faults]
  if points.points and sum(outside) == len(points.points):
    name, why = faults[0]
    raise errors.InputError(
      f'all {len(outside)} points are outside, such as {name}: {why}.'
      f' {_other_reading(points, volume)}'
    )
  bad_rows = [(name, ct_volume.PlaceError(why)) for name, why in points.faults]
  return found, bad_rows + faults


def _place(point, in_mm, volume):
  if in_mm:
    return Place(point.point_id, volume.to_voxel(point.at), point.at)
  voxel = volume.check_voxel(point.at)
  return Place(point.point_id, voxel, volume.to_mm(voxel))


def _other_reading(points, volume):
  """Which units would put every point inside, as a sentence."""
  at = np.array([point.at for point in points.points])
  shown = ','.join(points.columns)
  if points.in_mm:
    readings = {
      'i,j,k (voxels)': (at[:, ::-1], volume.check_voxel),
      'row,col,slice (voxels)': (at[:, [2, 0, 1]], volume.check_voxel),
      'x,y,z after a change of the signs of x and y (RAS to LPS)': (
        at * (-1, -1, 1),
        volume.to_voxel,
      ),
    }
  else:
    readings = {'x,y,z (mm)': (at[:, ::-1], volume.to_voxel)}
  fits = [
    name
    for name, (values, check) in readings.items()
    if all(_inside(check, value) for value in values)
  ]
  if not fits:
    return 'Do they belong to this series?'
  return f'The columns are {shown}; as {" or ".join(fits)} they would fit.'


def _inside(check, value):
  try:
    check(tuple(value))
  except ct_volume.OutsideError:
    return False
  except ct_volume.SliceError:  # it is missing, but not outside
    pass
  return True


def mirrored(found, volume):
  """Places as they would be if their mm were RAS, as far as they are inside.

  Args:
    found: list of `Place`, whose positions were taken for LPS.
    volume: `volume.Volume`.

  Returns:
    A list of `Place`.
  """
  others = []
  for place in found:
    x, y, z = place.position_mm
    at = -x, -y, z
    try:
      others.append(Place(place.place_id, volume.to_voxel(at), at))
    except ct_volume.PlaceError:
      continue
  return others


def annotated(volume, policy_name):
  """The nodules of a scan of LIDC-IDRI, with the readers' masks.

  Slice, centre and truth are those of the dataset's records.

  Args:
    volume: `volume.Volume`.
    policy_name: 'all' or 'paper', see `tfds_lidc.nodules.selection`.

  Returns:
    As `of_points`.

  Raises:
    errors.InputError: it is no such scan, or has no nodule; the annotations
      cannot be read.
  """
  from tfds_lidc import errors as lidc_errors

  with errors.translated(lidc_errors.InputError):
    return _annotated(volume, policy_name)


def _annotated(volume, policy_name):
  from tfds_lidc.nodules import annotations
  from tfds_lidc.nodules import patches
  from tfds_lidc.nodules import selection

  policy = selection.POLICIES[policy_name]
  nodules = [
    nodule
    for nodule in selection.select(policy)
    if nodule.series_uid == volume.series_uid
  ]
  if not nodules:
    known = volume.series_uid in annotations.scans()
    raise errors.InputError(
      f'series {volume.series_uid} '
      + (
        f'has no nodule of the selection {policy_name!r}'
        if known
        else 'is no scan of LIDC-IDRI, so nothing is annotated'
      )
      + ': give --points instead.'
    )
  found, faults = [], []
  for nodule in nodules:
    placed = patches.place_nodule(nodule, policy)
    z_mm = annotations.slice_positions(nodule.scan_id)
    try:
      if not placed:
        raise ct_volume.PlaceError('on no pixel enough readers agree')
      (patch,) = placed
      k = volume.slice_at(float(z_mm[patch.slice_index]))
    except ct_volume.PlaceError as error:
      faults.append((nodule.nodule_id, error))
      continue
    voxel = k, patch.row, patch.col
    found.append(
      Place(
        nodule.nodule_id,
        voxel,
        volume.to_mm(voxel),
        patch.mask,
        {
          'num_readers': nodule.num_readers,
          'consensus': '/'.join(map(str, policy.consensus)),
          'diameter_mm': nodule.diameter_mm,
          'malignancy_rating_mean': float(np.mean(nodule.malignancy)),
          'split': nodule.split,
        },
        nodule.patient_id,
      )
    )
  return found, faults
