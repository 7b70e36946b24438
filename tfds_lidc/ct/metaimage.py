"""CT as LUNA16 has it: a MetaImage a series, `<SeriesInstanceUID>.mhd`.

Needs the extra `volumes` (SimpleITK). A slice is called `FILE.mhd#K`, K from
the lowest z, and stands wherever the path of a DICOM file does; an `x` or `y`
behind it says that its columns or rows are read from the other end. Only the
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
# Between a direction and an axis: 0.06 degrees.
_AXIAL = 1e-3
# No CT has more; what claims to is refused before it is read.
_MAX_VOXELS = 2_000_000_000
_MAX_SPACING_MM = 100.0
_MAX_MM = 1e5


class Grid(NamedTuple):
  """What the header of a volume says.

  Attributes:
    size: columns, rows, slices.
    lowest_mm: z of the lowest slice.
    step_mm: between slices.
    downwards: whether the slices of the file run from the highest z.
    flips: 'x' where its columns run to the patient's right, 'y' where its rows
      run to the front: the other way than those of a patient on the back.
    in_one_piece: whether the file can only be read as a whole.
  """

  size: tuple[int, int, int]
  lowest_mm: float
  step_mm: float
  downwards: bool
  flips: str
  in_one_piece: bool


def load(luna_dir: str | os.PathLike) -> series_index.SeriesIndex:
  """Indexes the volumes below a directory; pixels are not read.

  Args:
    luna_dir: searched at any depth, such as the folder of subset0 to subset9.

  Raises:
    InputError: the directory is missing, empty or holds no such volume; or
      SimpleITK is not installed.
  """
  dicom_series.check_directory(luna_dir)
  if importlib.util.find_spec('SimpleITK') is None:
    raise errors.InputError(
      "--luna_dir needs SimpleITK: pip install 'mtnet_jax[volumes]'"
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
      f'no volume below {luna_dir} is called after a series, as those of '
      f'LUNA16 are: UID.mhd ({num_files} files); give the folder of its subsets'
    )
  return series_index.SeriesIndex(series, {}, faults, num_files, len(series))


def slice_name(path: str, k: int, flips: str = '') -> str:
  """What a slice of a volume is called; `flips` as in `Grid`."""
  return f'{path}#{k}{flips}'


def is_slice(name: str | os.PathLike) -> bool:
  """Whether a name is of a slice of a volume, and not of a file."""
  return bool(_SLICE.fullmatch(os.fspath(name)))


def file_of(name: str | os.PathLike) -> str:
  """The file of a slice; of a DICOM file itself."""
  match = _SLICE.fullmatch(os.fspath(name))
  return match[1] if match else os.fspath(name)


def read_grid(path: str) -> tuple[Grid | None, header.Fault | None]:
  """Reads the header of a volume, once for all of its slices.

  Returns:
    (grid, None), or (None, what is wrong).
  """
  try:
    modified_ns = os.stat(path).st_mtime_ns
  except OSError as e:
    return None, header.unreadable(e)
  return _read_grid(path, modified_ns)


# All of LUNA16's.
@functools.lru_cache(maxsize=1024)
def _read_grid(
  path: str, modified_ns: int
) -> tuple[Grid | None, header.Fault | None]:
  del modified_ns
  try:
    with open(path, 'rb') as file:
      text = file.read(1 << 14)
  except OSError as e:
    return None, header.unreadable(e)
  reason = _damage(path, text)
  if reason:
    return None, header.Fault('unreadable', reason)
  reader = _reader(path)
  # SimpleITK raises nothing else, and its text is of many lines.
  try:
    reader.ReadImageInformation()
  except RuntimeError as e:
    return None, header.unreadable(e)
  size, spacing = reader.GetSize(), reader.GetSpacing()
  if len(size) != 3 or reader.GetNumberOfComponents() != 1:
    return None, header.Fault('unreadable', 'is no volume of one value a voxel')
  origin = np.array(reader.GetOrigin())
  axes = np.array(reader.GetDirection()).reshape(3, 3)
  signs = np.sign(np.diag(axes))
  # Written so that NaN fails.
  if not (
    np.prod(size, dtype=float) <= _MAX_VOXELS
    and all(0 < x <= _MAX_SPACING_MM for x in spacing)
    and (np.abs(origin) <= _MAX_MM).all()
  ):
    return None, header.Fault('unreadable', 'is of no size or place of a CT')
  if not np.abs(axes - np.diag(signs)).max() <= _AXIAL:
    return None, header.Fault('unreadable', 'is no stack of axial slices')
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
  """Why a header is none of fields, the last of which names files there are.

  On such ITK may crash.
  """
  damaged = 'has a damaged header'
  head, _, rest = text.partition(b'ElementDataFile')
  name, *names = rest.strip(b' \t=:').splitlines() or [b'']
  fields = [_FIELD.match(line) for line in head.splitlines() if line.strip()]
  if not name or not all(fields) or _CONTROL.search(head + name):
    return damaged
  dimensions = [field[2].strip() for field in fields if field[1] == b'NDims']
  if dimensions not in ([b'2'], [b'3'], [b'4']):
    return damaged
  if name.startswith(b'LIST'):
    files = list(filter(None, names))
  elif name.lower().strip() == b'local' or _PATTERN.fullmatch(name):
    files = []  # They follow the header, or are counted.
  else:
    files = [name]
  folder = os.fsencode(os.path.dirname(path))
  if all(os.path.isfile(os.path.join(folder, x.strip())) for x in files):
    return None
  return 'is there without the file of its pixels, which its last line names'


def _has_slices(text: bytes) -> bool:
  """Whether a slice can be read without the others, by the text of a header.

  Numbers may be compressed, written as text, or lie in several files. Of those
  that are text ITK writes all into the memory of one slice, and beyond it.
  """
  fields = _FIELD.findall(text)
  true = b'T', b't', b'1'
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
  """Reads one slice; as `pixels.try_read_hu` reads a DICOM file."""
  path, k, flips = _SLICE.fullmatch(name).groups()
  grid, fault = read_grid(path)
  if fault:
    return None, fault
  k = int(k)
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
    return None, header.Fault('unreadable', 'holds NaN or infinity')
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


# The slices of a scan are read one after another.
@functools.lru_cache(maxsize=1)
def _whole(path: str, modified_ns: int) -> np.ndarray:
  del modified_ns
  import SimpleITK

  return SimpleITK.GetArrayFromImage(_reader(path).Execute())
