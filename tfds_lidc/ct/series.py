"""CT series by UID from any folder layout, and single slices of them as HU.

LIDC-IDRI comes in several namings (`000001.dcm`; `1-001.dcm` in shortened
descriptive folders; flat folders of UUIDs), with radiographs, licences and XML
in between, so only what the DICOM headers say is believed. `index`
joins the headers of a whole download, and remembers them.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import NamedTuple

import tqdm

from tfds_lidc import errors
from tfds_lidc.ct import header as dicom_header
from tfds_lidc.ct import pixels

# Slices of LIDC-IDRI are at least 0.45 mm apart; writers round z to 1e-3 mm.
Z_TOLERANCE_MM = 0.1


class Slice(NamedTuple):
  """One CT image of a series; sorts by z, the lower instance first."""

  z_mm: float  # ImagePositionPatient[2]
  instance_number: int
  path: str
  image_id: int = 0  # checksum of its SOPInstanceUID: a copy has the same


@dataclasses.dataclass(frozen=True)
class Series:
  """The CT slices of one series that are on this disk, from the lowest z."""

  uid: str
  patient_id: str
  slices: tuple[Slice, ...]  # none where every file is broken
  folder: str  # holds them all
  simulated: bool = False  # any slice is, see `series`

  def paths_at(self, z_mm: float) -> list[str]:
    """The files of the slice at `z_mm`, the lower instance number first.

    Position decides, not rank: a slice missing elsewhere shifts nothing. Some
    scans repeat a position; pylidc takes the lower instance number too.
    """
    near = [s for s in self.slices if abs(s.z_mm - z_mm) <= Z_TOLERANCE_MM]
    return [s.path for s in sorted(near, key=lambda s: s.instance_number)]

  def path_at(self, z_mm: float) -> str | None:
    """The first of `paths_at`, or None where the slice is missing."""
    return next(iter(self.paths_at(z_mm)), None)


def check_directory(lidc_dir: str | os.PathLike) -> None:
  """Raises `InputError` unless `lidc_dir` is a folder that is not empty."""
  path = pathlib.Path(lidc_dir)
  if not path.exists():
    raise errors.InputError(
      f'{path} does not exist; give the folder that holds the DICOM files '
      'of LIDC-IDRI'
    )
  if not path.is_dir():
    raise errors.InputError(
      f'{path} is not a directory; give the folder that holds the DICOM '
      'files of LIDC-IDRI'
    )
  if not any(path.iterdir()):
    raise errors.InputError(
      f'{path} is empty; download LIDC-IDRI (or a patient of it) from '
      'https://www.cancerimagingarchive.net/collection/lidc-idri/ into it'
    )


def index(lidc_dir: str | os.PathLike) -> dict[str, Series]:
  """Finds every CT series below a small directory, and stops at any fault.

  For a whole download `index.load` is faster, and stops at none.

  Args:
    lidc_dir: searched at any depth, links to directories included.

  Returns:
    The series by SeriesInstanceUID.

  Raises:
    InputError: the directory is missing or empty, holds no CT, or a file in it
      cannot be read.
  """
  check_directory(lidc_dir)
  paths = list(files(lidc_dir))
  headers = []
  for path in tqdm.tqdm(
    paths, desc='reading DICOM headers', unit='file', delay=2, leave=False
  ):
    header, fault = dicom_header.read_header(path)
    if fault and not header:
      raise pixels.mend(path, fault)
    if header and header.modality == 'CT':
      headers.append((path, header))
  if not headers:
    raise no_ct(lidc_dir, len(paths))
  return join(headers)


def no_ct(lidc_dir: str | os.PathLike, num_files: int) -> errors.InputError:
  """The error for a directory that holds other things than CT."""
  return errors.InputError(
    f'no CT series below {lidc_dir} (0 CT images among {num_files} files); '
    'give the folder that holds the DICOM files of LIDC-IDRI'
  )


def join(
  headers: list[tuple[str, dicom_header.Header]],
  broken: Sequence[tuple[str, dicom_header.Header]] = (),
) -> dict[str, Series]:
  """Sorts CT images, (path, header), into their series.

  Args:
    headers: of whole files.
    broken: of files whose pixels are incomplete: no slices, but a series of
      which nothing else is left is there all the same.
  """
  slices = collections.defaultdict(list)
  folders = collections.defaultdict(set)
  last = {}
  for path, header in [*broken, *headers]:
    folders[header.series_uid].add(os.path.dirname(path))
    last[header.series_uid] = header
  for path, header in headers:
    slices[header.series_uid].append(
      Slice(header.z_mm, header.instance_number, path, header.image_id)
    )
  simulated = {h.series_uid for _, h in headers if h.simulated}
  return {
    uid: Series(
      uid,
      header.patient_id,
      tuple(sorted(slices[uid])),
      os.path.commonpath(folders[uid]),
      uid in simulated,
    )
    for uid, header in last.items()
  }


def files(
  directory: str | os.PathLike,
  on_error: Callable[[OSError], None] | None = None,
) -> Iterator[str]:
  """All visible files below, in a fixed order, each directory once.

  Args:
    directory: searched at any depth, links to directories included.
    on_error: told of a directory that cannot be listed; raises `InputError`
      by default.

  Yields:
    Paths.
  """

  def fail(e: OSError):
    raise errors.InputError(
      f'cannot list {e.filename}: {e.strerror}; mend its permissions'
    )

  seen = set()
  for root, directories, names in os.walk(
    directory, followlinks=True, onerror=on_error or fail
  ):
    directories.sort()
    real = os.path.realpath(root)
    if real in seen:  # a link that leads back up would never end
      directories.clear()
      continue
    seen.add(real)
    # Hidden files, such as macOS's `._1-001.dcm`, are no one's data.
    yield from (
      os.path.join(root, name)
      for name in sorted(names)
      if not name.startswith('.')
    )
