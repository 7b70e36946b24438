"""CT series by UID from any folder layout, and single slices of them as HU.

LIDC-IDRI comes in several namings (`000001.dcm`; `1-001.dcm` in shortened
descriptive folders; flat folders of UUIDs), with radiographs, licences and XML
in between, so only what the DICOM headers say is believed. `series_index`
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

import numpy as np
import pydicom
from pydicom import encaps
from pydicom import pixels
import tqdm

from tfds_lidc import codestream
from tfds_lidc import decoder
from tfds_lidc import dicom_header
from tfds_lidc import errors

# Slices of LIDC-IDRI are at least 0.45 mm apart; writers round z to 1e-3 mm.
Z_TOLERANCE_MM = 0.1

_INT16 = np.iinfo(np.int16)
# No CT image is larger; what claims to be is refused before it is decoded.
_MOST_PIXELS = 4096 * 4096
_BITS = (1, 8, 16, 32)
# Installed with this package.
_DECODERS = ('pydicom', 'pillow', 'pyjpegls')
_decode_apart = decoder.Decoder()

# What decodes the images that pydicom, Pillow and pyjpegls, which are installed
# with this package, cannot: JPEG Lossless and Extended; High-Throughput JPEG
# 2000, which GDCM cannot either. The extra `jpeg` has both.
_CODEC = 'python-gdcm'
_HIGH_THROUGHPUT_CODEC = 'pylibjpeg pylibjpeg-openjpeg'


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
  simulated: bool = False  # any slice is, see `phantom_dicom`

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

  For a whole download `series_index.load` is faster, and stops at none.

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
      raise _mend(path, fault)
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


def read_hu(path: str | os.PathLike) -> np.ndarray:
  """Reads one CT image.

  Args:
    path: a DICOM file.

  Returns:
    (rows, columns) int16, HU: raw * RescaleSlope + RescaleIntercept, rounded
    where the slope is fractional, saturated where it leaves int16.

  Raises:
    InputError: the file has no pixels or no rescale, or cannot be decoded.
  """
  hu, fault = try_read_hu(path)
  if fault:
    raise _mend(path, fault)
  return hu


def try_read_hu(
  path: str | os.PathLike,
) -> tuple[np.ndarray | None, dicom_header.Fault | None]:
  """`read_hu` that returns (HU, None), or (None, what is wrong).

  Raises:
    InputError: compressed images cannot be decoded here, whatever they are.
  """
  dataset, fault = dicom_header.parse(path)
  if fault:
    return None, fault
  try:
    claim = _impossible(dataset)
    if claim:
      return None, dicom_header.Fault('unreadable', claim)
    slope = float(dataset.RescaleSlope)
    intercept = float(dataset.RescaleIntercept)
    if not np.isfinite([slope, intercept]).all():
      return None, dicom_header.Fault(
        'unreadable', f'has the rescale {slope:g} and {intercept:g}, no numbers'
      )
    raw = _pixels(dataset)
  except decoder.DecodingError as e:
    return None, dicom_header.undecodable(e)
  except decoder.StartError as e:
    raise errors.InputError(
      f'cannot start the process that decodes compressed DICOM images: {e}'
    ) from None
  # Broken pixel data surfaces as nearly any exception of NumPy or a codec.
  except Exception as e:
    return None, _missing_codec(dataset, e) or dicom_header.unreadable(e)
  if raw.ndim != 2:
    return None, dicom_header.Fault(
      'unreadable', f'holds {raw.shape} pixels, not an image'
    )
  hu = raw * slope + intercept
  return np.clip(np.rint(hu), _INT16.min, _INT16.max).astype(np.int16), None


def _impossible(dataset: pydicom.Dataset) -> str | None:
  """Why an image cannot be one slice of CT, from what it claims to be.

  Decoders allocate what is claimed, so it is judged before they run.
  """
  rows, columns = int(dataset.Rows), int(dataset.Columns)
  frames = int(dataset.get('NumberOfFrames') or 1)
  samples = int(dataset.get('SamplesPerPixel') or 1)
  bits = int(dataset.BitsAllocated)
  if frames != 1:
    return f'holds {frames:.6g} frames, not an image'
  if samples != 1:
    return f'has {samples} samples per pixel, and CT has 1'
  if bits not in _BITS:
    return f'has {bits} bits allocated per pixel'
  if not 0 < rows * columns <= _MOST_PIXELS:
    return (
      f'claims {rows} x {columns} pixels, and CT has up to {_MOST_PIXELS:,}'
    )
  syntax = dataset.file_meta.TransferSyntaxUID
  if not syntax.is_encapsulated or syntax == pydicom.uid.RLELossless:
    return None
  if not pixels.get_decoder(syntax).is_available:
    return None  # nothing is decoded, and what to install is told
  # One frame is all there is: a table of others would only mislead.
  for name in ('ExtendedOffsetTable', 'ExtendedOffsetTableLengths'):
    if name in dataset:
      delattr(dataset, name)
  stream = encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
  size = codestream.size(stream)
  if size != (rows, columns, 1):
    found = f'{size.rows} x {size.columns} pixels' if size else 'no image'
    return f'claims {rows} x {columns} pixels, and its compressed data {found}'
  return None


def _pixels(dataset: pydicom.Dataset) -> np.ndarray:
  """The raw values; of compressed images, as another process decodes them."""
  syntax = dataset.file_meta.TransferSyntaxUID
  if not syntax.is_encapsulated:
    return dataset.pixel_array
  available = pixels.get_decoder(syntax).available_plugins
  if not available:
    return dataset.pixel_array  # says what is missing
  # Values do not depend on what else is installed; of an image that one cannot
  # decode, pydicom would ask the others.
  name = next((p for p in _DECODERS if p in available), '')
  return _decode_apart(dataset, name)


def _missing_codec(
  dataset: pydicom.Dataset, e: Exception
) -> dicom_header.Fault | None:
  """The fault of a compressed image whose decoder is not installed."""
  syntax = dataset.file_meta.get('TransferSyntaxUID', '')
  if 'missing dependencies' not in str(e) or not syntax:
    return None
  high_throughput = 'High-Throughput' in syntax.name
  package = _HIGH_THROUGHPUT_CODEC if high_throughput else _CODEC
  return dicom_header.Fault(
    'codec', f'is compressed ({syntax.name}); run: pip install {package}'
  )


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


def _mend(
  path: str | os.PathLike, fault: dicom_header.Fault
) -> errors.InputError:
  if fault.kind == 'codec':
    return errors.InputError(f'{path} {fault.reason}')
  return errors.InputError(
    f'{path} {fault.reason}; download it again, or delete it'
  )
