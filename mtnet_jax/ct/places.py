"""Places in a CT to predict at: points of a file, or the dataset's nodules."""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np

from mtnet_jax.ct import points as points_lib
from mtnet_jax.ct import views
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.system import errors


class Place(NamedTuple):
  """One place.

  Attributes:
    place_id: also the stem of its files' names.
    voxel: (slice, row, column), the nearest voxel.
    position_mm: (x, y, z) of the point in the file, or of the voxel.
    truth: (64, 64) bool, the readers' mask around the voxel; None if unknown.
    readers: the readers' ratings and sizes, for the record; empty if unknown.
    patient_id: as in LIDC-IDRI; '' if unknown. It is compared with the patients
      that the model has seen, and never written.
  """

  place_id: str
  voxel: views.Voxel
  position_mm: tuple[float, float, float]
  truth: np.ndarray | None = None
  readers: Mapping[str, Any] = {}
  patient_id: str = ''


# (id of a point, why it cannot be used).
Fault = tuple[str, ct_volume.PlaceError]


def from_points(
  points: points_lib.Points, volume: ct_volume.Volume
) -> tuple[list[Place], list[Fault]]:
  """Finds the places of a points file.

  Args:
    points: the points for this series.
    volume: the CT.

  Returns:
    The places, and the faults: rows that cannot be used, points outside of the
    volume, and points on missing slices.

  Raises:
    errors.InputError: all points lie outside, or the points are voxels but the
      series lacks slices.
  """
  if not points.in_mm and volume.lacks_slices:
    raise errors.InputError(
      f'series {volume.series_uid} lacks slices, so that slice numbers are'
      ' ambiguous: give the points in mm, as x,y,z.'
    )
  found: list[Place] = []
  faults: list[Fault] = []
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
    voxel = volume.to_voxel(point.coordinates)
    return Place(point.point_id, voxel, point.coordinates)
  voxel = volume.check_voxel(point.coordinates)
  return Place(point.point_id, voxel, volume.to_mm(voxel))


def _other_reading(points, volume):
  """A sentence that names the units in which all points would be inside."""
  values = np.array([point.coordinates for point in points.points])
  shown = ','.join(points.columns)
  if points.in_mm:
    readings = {
      'i,j,k (voxels)': (values[:, ::-1], volume.check_voxel),
      'row,col,slice (voxels)': (values[:, [2, 0, 1]], volume.check_voxel),
      'x,y,z after a change of the signs of x and y (RAS to LPS)': (
        values * (-1, -1, 1),
        volume.to_voxel,
      ),
    }
  else:
    readings = {'x,y,z (mm)': (values[:, ::-1], volume.to_voxel)}
  fits = [
    name
    for name, (converted, check) in readings.items()
    if all(_inside(check, value) for value in converted)
  ]
  if not fits:
    return 'Do they belong to this series?'
  return f'The columns are {shown}; as {" or ".join(fits)} they would fit.'


def _inside(check, value):
  try:
    check(tuple(value))
  except ct_volume.OutsideError:
    return False
  except ct_volume.SliceError:  # the slice is missing, but not outside
    pass
  return True


def mirrored(found: Iterable[Place], volume: ct_volume.Volume) -> list[Place]:
  """The places if their positions were RAS; those inside of the volume.

  Args:
    found: places whose positions were read as LPS.
    volume: the CT.
  """
  others = []
  for place in found:
    x, y, z = place.position_mm
    position_mm = -x, -y, z
    try:
      voxel = volume.to_voxel(position_mm)
    except ct_volume.PlaceError:
      continue
    others.append(Place(place.place_id, voxel, position_mm))
  return others


def annotated(
  volume: ct_volume.Volume, policy_name: str
) -> tuple[list[Place], list[Fault]]:
  """Finds the nodules of a scan of LIDC-IDRI, with the readers' masks.

  Slice, centre and mask are those of the dataset's records.

  Args:
    volume: the CT.
    policy_name: 'all' or 'paper', see `tfds_lidc.nodules.selection`.

  Returns:
    As `from_points`.

  Raises:
    errors.InputError: the CT is not a scan of LIDC-IDRI or has no nodule, or
      the annotations cannot be read.
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
        else 'is no scan of LIDC-IDRI, so that it has no annotations'
      )
      + ': give --points instead.'
    )
  found, faults = [], []
  for nodule in nodules:
    placed = patches.place_nodule(nodule, policy)
    z_mm = annotations.slice_positions(nodule.scan_id)
    try:
      if not placed:
        raise ct_volume.PlaceError('no pixel is marked by enough readers')
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
