"""Defines CT series, and lists the files of a download in any folder layout.

LIDC-IDRI is distributed with several naming schemes (`000001.dcm`; `1-001.dcm`
in shortened descriptive folders; flat folders of UUIDs), mixed with
radiographs, licences and XML. Therefore only the DICOM headers count. `index`
reads and caches the headers of a whole download.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import os
import pathlib
from typing import NamedTuple

from tfds_lidc import errors

# Slices of LIDC-IDRI are at least 0.45 mm apart; writers round z to 1e-3 mm.
Z_TOLERANCE_MM = 0.1


class Slice(NamedTuple):
  """One CT image of a series; sorts by z, then by instance number."""

  z_mm: float  # ImagePositionPatient[2]
  instance_number: int
  path: str
  image_id: int = 0  # checksum of the SOPInstanceUID; equal for copies


@dataclasses.dataclass(frozen=True)
class Series:
  """The CT slices of one series that are on this disk, from the lowest z."""

  uid: str
  patient_id: str
  slices: tuple[Slice, ...]  # empty if every file is broken
  folder: str  # contains all slices, at any depth
  simulated: bool = False  # whether any slice is, see `phantom.series`

  def paths_at(self, z_mm: float) -> list[str]:
    """Returns the files of the slice at `z_mm`, sorted by instance number.

    Slices are found by position instead of rank, so that a slice missing
    elsewhere shifts nothing. Some scans repeat a position; like pylidc, use the
    lower instance number then.
    """
    near = [s for s in self.slices if abs(s.z_mm - z_mm) <= Z_TOLERANCE_MM]
    return [s.path for s in sorted(near, key=lambda s: s.instance_number)]

  def path_at(self, z_mm: float) -> str | None:
    """Returns the first of `paths_at`, or None if the slice is missing."""
    return next(iter(self.paths_at(z_mm)), None)


def check_directory(lidc_dir: str | os.PathLike[str]) -> None:
  """Checks that a directory exists and is not empty.

  Raises:
    InputError: it does not exist, is no directory, or is empty.
  """
  path = pathlib.Path(lidc_dir)
  if not path.exists():
    raise errors.InputError(
      f'{path} does not exist; give the folder that contains the DICOM files '
      'of LIDC-IDRI'
    )
  if not path.is_dir():
    raise errors.InputError(
      f'{path} is not a directory; give the folder that contains the DICOM '
      'files of LIDC-IDRI'
    )
  if not any(path.iterdir()):
    raise errors.InputError(
      f'{path} is empty; download LIDC-IDRI (or a patient of it) from '
      'https://www.cancerimagingarchive.net/collection/lidc-idri/ into it'
    )


def files(
  directory: str | os.PathLike[str],
  on_error: Callable[[OSError], None] | None = None,
) -> Iterator[str]:
  """Yields all visible files of a directory tree, in a fixed order.

  Args:
    directory: searched at any depth, also through links to directories; each
      directory is visited once.
    on_error: called with the error of a directory that cannot be listed; raises
      `InputError` by default.

  Yields:
    Paths of files.
  """

  def fail(e: OSError) -> None:
    raise errors.InputError(
      f'cannot list {e.filename}: {e.strerror}; change its permissions'
    )

  seen = set()
  for root, directories, names in os.walk(
    os.fspath(directory), followlinks=True, onerror=on_error or fail
  ):
    directories.sort()
    real = os.path.realpath(root)
    if real in seen:  # a link to a parent directory would never end
      directories.clear()
      continue
    seen.add(real)
    # Hidden files, such as macOS's `._1-001.dcm`, contain no images.
    yield from (
      os.path.join(root, name)
      for name in sorted(names)
      if not name.startswith('.')
    )
