"""Reads CT of LUNA16: one MetaImage per series, `<SeriesInstanceUID>.mhd`.

Needs the extra `volumes` (SimpleITK). A slice has the name `FILE.mhd#K`, where
K counts from the lowest z, and can replace the path of a DICOM file everywhere.
A suffix `x` or `y` means that its columns or rows are read in reverse. Only the
slices that are needed are read, unless the file is compressed.
"""

import functools
import importlib.util
import os
import re
from typing import Any
from typing import NamedTuple

import numpy as np

from tfds_lidc import errors
from tfds_lidc.ct import header
from tfds_lidc.ct import index as series_index
from tfds_lidc.ct import series as dicom_series

_SLICE = re.compile(r'(.*\.mhd)#(\d+)(x?y?)', re.DOTALL)
_UID = re.compile(r'\d+(?:\.\d+){5,}')
_FIELD = re.compile(rb'^[ \t]*(\w+)[ \t]*[=:][ \t]*([^\r\n]*)', re.M)
_CONTROL = re.compile(rb'[\x00-\x08\x0e-\x1f\x7f]')
_PATTERN = re.compile(rb'[ -~]*%[ -~]*')
_SEVERAL = re.compile(rb'LIST|.*%')
_INT16 = np.iinfo(np.int16)
# Largest difference between a direction and an axis: 0.06 degrees.
_AXIAL = 1e-3
# Beyond any CT; a file that claims more is rejected before it is read.
_MAX_VOXELS = 2_000_000_000
_MAX_SPACING_MM = 100.0
_MAX_MM = 1e5


class Grid(NamedTuple):
  """The header of a volume.

  Attributes:
    size: number of columns, rows and slices.
    lowest_mm: z of the lowest slice.
    step_mm: distance between slices.
    downwards: whether the slices of the file start at the highest z.
    flips: 'x' if the columns run to the patient's right, and 'y' if the rows
      run to the front: the reverse of a patient who lies on the back.
    in_one_piece: whether the file can only be read as a whole.
  """

  size: tuple[int, int, int]
  lowest_mm: float
  step_mm: float
  downwards: bool
  flips: str
  in_one_piece: bool


def load(luna_dir: str | os.PathLike[str]) -> series_index.SeriesIndex:
  """Indexes the volumes below a directory; pixels are not read.

  Args:
    luna_dir: searched at any depth, such as the parent of subset0 to subset9.

  Returns:
    The index.

  Raises:
    InputError: the directory is missing, empty or has no such volume; or
      SimpleITK is not installed.
  """
  dicom_series.check_directory(luna_dir)
  if importlib.util.find_spec('SimpleITK') is None:
    raise errors.InputError(
      "--luna_dir needs SimpleITK; run: pip install 'mtnet_jax[volumes]'"
    )
  series, faults, num_files = {}, [], 0
  for path in dicom_series.files(luna_dir):
    num_files += 1
    uid, ending = os.path.splitext(os.path.basename(path))
    if ending != '.mhd' or not _UID.fullmatch(uid):
      continue
    grid, fault = read_grid(path)
    if fault:
      faults.append(series_index.FileFault(path, *fault, series_uid=uid))
    if grid is None:
      continue
    series[uid] = dicom_series.Series(
      uid,
      '',
      tuple(
        dicom_series.Slice(
          grid.lowest_mm + k * grid.step_mm, k, slice_name(path, k), k
        )
        for k in range(grid.size[2])
      ),
      os.path.dirname(path),
    )
  if not series:
    raise errors.InputError(
      f'no volume below {luna_dir} is named after a series, as those of '
      f'LUNA16 are: UID.mhd ({num_files} files); give the folder of its subsets'
    )
  return series_index.SeriesIndex(series, {}, faults, num_files, len(series))


def slice_name(path: str, k: int, flips: str = '') -> str:
  """Returns the name of a slice of a volume; `flips` as in `Grid`."""
  return f'{path}#{k}{flips}'


def is_slice(name: str | os.PathLike[str]) -> bool:
  """Whether a name means a slice of a volume and not a file."""
  return bool(_SLICE.fullmatch(os.fspath(name)))


def file_of(name: str | os.PathLike[str]) -> str:
  """Returns the file of a slice; the path of a DICOM file stays unchanged."""
  match = _SLICE.fullmatch(os.fspath(name))
  return match[1] if match else os.fspath(name)


def read_grid(path: str) -> tuple[Grid | None, header.Fault | None]:
  """Reads the header of a volume; cached for its other slices.

  Args:
    path: a file `<SeriesInstanceUID>.mhd`.

  Returns:
    (grid, None), or (None, what is wrong).
  """
  try:
    modified_ns = os.stat(path).st_mtime_ns
  except OSError as e:
    return None, header.unreadable(e)
  return _read_grid(path, modified_ns)


# Large enough for all of LUNA16.
@functools.lru_cache(maxsize=1024)
def _read_grid(
  path: str, modified_ns: int
) -> tuple[Grid | None, header.Fault | None]:
  del modified_ns  # only makes the cache notice that the file has changed
  try:
    with open(path, 'rb') as file:
      text = file.read(1 << 14)
  except OSError as e:
    return None, header.unreadable(e)
  reason = _damage(path, text)
  if reason:
    return None, header.Fault('unreadable', reason)
  reader = _reader(path)
  try:
    reader.ReadImageInformation()
  except RuntimeError as e:  # all that SimpleITK raises
    return None, header.unreadable(e)
  size, spacing = reader.GetSize(), reader.GetSpacing()
  if len(size) != 3 or reader.GetNumberOfComponents() != 1:
    return None, header.Fault(
      'unreadable', 'is not a volume with one value per voxel'
    )
  origin = np.array(reader.GetOrigin())
  axes = np.array(reader.GetDirection()).reshape(3, 3)
  signs = np.sign(np.diag(axes))
  # Comparisons with NaN are false, so that NaN is rejected.
  if not (
    np.prod(size, dtype=float) <= _MAX_VOXELS
    and all(0 < x <= _MAX_SPACING_MM for x in spacing)
    and (np.abs(origin) <= _MAX_MM).all()
  ):
    return None, header.Fault(
      'unreadable', 'has a size or position that no CT has'
    )
  if not np.abs(axes - np.diag(signs)).max() <= _AXIAL:
    return None, header.Fault('unreadable', 'is not a stack of axial slices')
  length_mm = (size[2] - 1) * spacing[2]
  return Grid(
    size=size,
    lowest_mm=float(origin[2] - (signs[2] < 0) * length_mm),
    step_mm=float(spacing[2]),
    downwards=bool(signs[2] < 0),
    flips='x' * bool(signs[0] < 0) + 'y' * bool(signs[1] < 0),
    in_one_piece=not _has_slices(text),
  ), None


def _damage(path: str, text: bytes) -> str | None:
  """Says what is wrong with a header on which ITK might crash, or None.

  A sound header consists of fields, and the last one names existing files.
  """
  damaged = 'has a damaged header'
  head, _, rest = text.partition(b'ElementDataFile')
  name, *names = rest.strip(b' \t=:').splitlines() or [b'']
  fields = [_FIELD.match(line) for line in head.splitlines() if line.strip()]
  if not name or not all(fields) or _CONTROL.search(head + name):
    return damaged
  dimensions = [x[2].strip() for x in fields if x and x[1] == b'NDims']
  if dimensions not in ([b'2'], [b'3'], [b'4']):
    return damaged
  if name.startswith(b'LIST'):
    files = list(filter(None, names))
  elif name.lower().strip() == b'local' or _PATTERN.fullmatch(name):
    files = []  # the pixels follow the header, or are in numbered files
  else:
    files = [name]
  folder = os.fsencode(os.path.dirname(path))
  if all(os.path.isfile(os.path.join(folder, x.strip())) for x in files):
    return None
  return 'lacks the file of its pixels, which its last line names'


def _has_slices(text: bytes) -> bool:
  """Whether a header allows to read one slice without the others.

  This is impossible if values are compressed, text, or in several files. If
  they are text, ITK would write all of them into the memory of one slice.
  """
  fields = _FIELD.findall(text)
  true = (b'T', b't', b'1')
  binary = [x.startswith(true) for key, x in fields if key == b'BinaryData']
  whole = [
    x.startswith(true) if key == b'CompressedData' else _SEVERAL.match(x)
    for key, x in fields
    if key in (b'CompressedData', b'ElementDataFile')
  ]
  return bool(binary) and all(binary) and not any(whole)


def try_read_hu(
  name: str,
) -> tuple[np.ndarray | None, header.Fault | None]:
  """Reads one slice, like `pixels.try_read_hu` for a DICOM file.

  Args:
    name: of a slice, see `slice_name`.

  Returns:
    ((rows, columns) int16 HU, None), or (None, what is wrong).

  Raises:
    ValueError: the name is not that of a slice.
  """
  match = _SLICE.fullmatch(name)
  if not match:
    raise ValueError(f'{name!r} is not a slice of a volume')
  path, flips, k = match[1], match[3], int(match[2])
  grid, fault = read_grid(path)
  if grid is None:
    return None, fault
  if k >= grid.size[2]:
    return None, header.Fault('truncated', f'has no slice {k}')
  if grid.downwards:
    k = grid.size[2] - 1 - k
  try:
    if grid.in_one_piece:
      values = _whole(path, os.stat(path).st_mtime_ns)[k]
    else:
      values = _region(path, grid, k)
  except (RuntimeError, OSError) as e:
    return None, header.unreadable(e)
  if 'x' in flips:
    values = values[:, ::-1]
  if 'y' in flips:
    values = values[::-1]
  if not np.isfinite(values).all():
    return None, header.Fault('unreadable', 'contains NaN or infinity')
  hu = np.clip(np.rint(values), _INT16.min, _INT16.max)
  return hu.astype(np.int16), None


def _reader(path: str) -> Any:
  import SimpleITK

  SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
  reader = SimpleITK.ImageFileReader()
  reader.SetFileName(path)
  reader.SetImageIO('MetaImageIO')
  return reader


def _region(path: str, grid: Grid, k: int) -> np.ndarray:
  """One slice of a file that is not compressed."""
  import SimpleITK

  reader = _reader(path)
  reader.SetExtractIndex([0, 0, k])
  reader.SetExtractSize([*grid.size[:2], 1])
  return SimpleITK.GetArrayFromImage(reader.Execute())[0]


# One volume is enough, as the slices of a scan are read one after another.
@functools.lru_cache(maxsize=1)
def _whole(path: str, modified_ns: int) -> np.ndarray:
  del modified_ns  # only makes the cache notice that the file has changed
  import SimpleITK

  return SimpleITK.GetArrayFromImage(_reader(path).Execute())
