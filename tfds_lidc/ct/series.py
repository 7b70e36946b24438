"""CT series by UID, from any folder layout.

LIDC-IDRI comes in several namings (`000001.dcm`; `1-001.dcm` in shortened
descriptive folders; flat folders of UUIDs), with radiographs, licences and XML
in between, so only what the DICOM headers say is believed. `index` reads the
headers of a whole download, and remembers them.
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
  simulated: bool = False  # any slice is, see `phantom.series`

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


def files(
  directory: str | os.PathLike,
  on_error: Callable[[OSError], None] | None = None,
) -> Iterator[str]:
  """All visible files below, in a fixed order, each directory once.

  Args:
    directory: searched at any depth, links to directories included.
    on_error: called with the error of a directory that cannot be listed;
      raises `InputError` by default.

  Yields:
    Paths.
  """

  def fail(e: OSError):
    raise errors.InputError(
      f'cannot list {e.filename}: {e.strerror}; change its permissions'
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
