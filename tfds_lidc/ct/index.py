"""What a download holds: every series below a directory, read once.

The headers of 240,000 files take minutes, so they are read by all cores and
remembered in a file; a later call reads those that are new or have changed
(another size or modification time). No file stops the reading of the others:
what is wrong is kept as a fault beside them.
"""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import tempfile
from typing import Any
from typing import NamedTuple

import tqdm

from tfds_lidc import errors
from tfds_lidc import parallel
from tfds_lidc.ct import header as dicom_header
from tfds_lidc.ct import series as dicom_series

# Of the remembered file; raise it when entries, or what is read, change.
_FORMAT = 2
_CHUNK = 200  # files that a process reads at a time
_MIN_PARALLEL = 2000  # below that, starting processes takes longer

_Read = tuple[dicom_header.Header | None, dicom_header.Fault | None]


class FileFault(NamedTuple):
  """A file that cannot be used, and its series where the header tells it."""

  path: str
  kind: str
  reason: str
  series_uid: str | None = None
  z_mm: float | None = None


@dataclasses.dataclass(frozen=True)
class SeriesIndex:
  """What a directory holds.

  Attributes:
    series: CT by SeriesInstanceUID; without the slices that are faulty.
    others: (modality, patient, SeriesInstanceUID) -> files, for the rest.
    faults: the files that cannot be used, by path.
    num_files: how many files there are, of any kind.
    num_read: of how many of them the header was read this time.
  """

  series: dict[str, dicom_series.Series]
  others: dict[tuple[str, str, str], list[str]]
  faults: list[FileFault]
  num_files: int
  num_read: int

  def faults_near(self, series: dicom_series.Series) -> tuple[FileFault, ...]:
    """Faults that are, or may be, slices of a series: theirs, or beside it."""
    folders = {os.path.dirname(s.path) for s in series.slices}
    folders.add(series.folder)
    return tuple(
      fault
      for fault in self.faults
      if fault.series_uid == series.uid
      or (fault.series_uid is None and os.path.dirname(fault.path) in folders)
    )


def load(
  lidc_dir: str | os.PathLike,
  *,
  cache_dir: str | os.PathLike | None = None,
  workers: int = 1,
  show_progress: bool = True,
) -> SeriesIndex:
  """Indexes a directory, reading only what is not remembered.

  Args:
    lidc_dir: searched at any depth, links to directories included.
    cache_dir: where headers are remembered; None for nowhere.
    workers: processes that read headers.
    show_progress: whether to show a bar when it takes more than two seconds.

  Returns:
    The index.

  Raises:
    InputError: the directory is missing, empty or holds no CT.
  """
  dicom_series.check_directory(lidc_dir)
  root = pathlib.Path(lidc_dir)
  cache = _cache_file(root, cache_dir) if cache_dir else None
  known = _recall(cache) if cache else {}
  faults = []

  def remember_fault(e: OSError):
    faults.append(
      FileFault(e.filename, 'unreadable', f'cannot be listed ({e.strerror})')
    )

  stats = {}  # path -> [size, mtime in ns]
  for path in dicom_series.files(root, on_error=remember_fault):
    try:
      stat = os.stat(path)
    except OSError as e:  # a link to nowhere
      faults.append(FileFault(path, 'unreadable', f'is gone ({e.strerror})'))
      continue
    stats[path] = [stat.st_size, stat.st_mtime_ns]

  entries, unread = {}, []
  for path, stamp in stats.items():
    remembered = known.get(os.path.relpath(path, root))
    if remembered and remembered[:2] == stamp:
      entries[path] = remembered[2:]
    else:
      unread.append(path)
  try:
    _read_all(unread, entries, workers, show_progress)
  finally:  # an interrupted reading goes on where it was
    found_ct = any(h and h[0] == 'CT' for h, _ in entries.values())
    if cache and found_ct and (unread or len(known) != len(entries)):
      _remember(
        cache,
        {
          os.path.relpath(path, root): [*stats[path], *entry]
          for path, entry in entries.items()
        },
      )
  if not found_ct:
    raise errors.InputError(
      f'no CT series below {lidc_dir} (0 CT images among {len(stats)} files); '
      'give the folder that holds the DICOM files of LIDC-IDRI'
    )
  return _join(entries, faults, len(unread))


def read(
  paths: Sequence[str], *, workers: int = 1, show_progress: bool = True
) -> SeriesIndex:
  """Indexes given files, and remembers nothing.

  Args:
    paths: files of any kind.
    workers: processes that read headers.
    show_progress: whether to show a bar when it takes more than two seconds.

  Returns:
    The index, which may be empty.
  """
  entries = {}
  _read_all(list(paths), entries, workers, show_progress)
  return _join(entries, [], len(entries))


def _read_all(
  paths: list[str],
  entries: dict[str, Sequence[Any]],
  workers: int,
  show_progress: bool,
) -> None:
  """Reads headers, and adds them to `entries` as they come."""
  chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
  with tqdm.tqdm(
    total=len(paths),
    desc='reading DICOM headers',
    unit='file',
    delay=2,
    leave=False,
    disable=None if show_progress else True,  # None: on a terminal only
  ) as bar:
    for chunk, found in zip(
      chunks,
      parallel.ordered_map(
        _read_chunk,
        chunks,
        workers=workers if len(paths) >= _MIN_PARALLEL else 1,
        on_crash=_crashed,
      ),
      strict=True,
    ):
      entries.update(zip(chunk, found, strict=True))
      bar.update(len(chunk))


def _read_chunk(paths: list[str]) -> list[_Read]:
  return [dicom_header.read_header(path) for path in paths]


def _crashed(paths: list[str]) -> list[_Read]:
  fault = dicom_header.Fault(
    'unreadable',
    'or another file of its batch crashed the process that read them',
  )
  return [(None, fault) for _ in paths]


def _join(
  entries: dict[str, Sequence[Any]], faults: list[FileFault], num_read: int
) -> SeriesIndex:
  """Sorts files by their series; `faults` are of what has no entry."""
  slices = collections.defaultdict(list)
  folders = collections.defaultdict(set)
  others = collections.defaultdict(list)
  patients, simulated = {}, set()
  # Broken files first, so that the header of a whole one decides.
  for path, (header, fault) in sorted(
    entries.items(), key=lambda entry: not entry[1][1]
  ):
    header = header and dicom_header.Header(*header)
    if fault:
      where = (header.series_uid, header.z_mm) if header else ()
      faults.append(FileFault(path, *fault, *where))
    if not header:
      continue
    uid = header.series_uid
    if header.modality != 'CT':
      others[header.modality, header.patient_id, uid].append(path)
      continue
    # A series of which every file is broken is there, without slices.
    folders[uid].add(os.path.dirname(path))
    patients[uid] = header.patient_id
    if not fault:
      slices[uid].append(
        dicom_series.Slice(
          header.z_mm, header.instance_number, path, header.image_id
        )
      )
      if header.simulated:
        simulated.add(uid)
  series = {
    uid: dicom_series.Series(
      uid,
      patient_id,
      tuple(sorted(slices[uid])),
      os.path.commonpath(folders[uid]),
      uid in simulated,
    )
    for uid, patient_id in patients.items()
  }
  faults = sorted(faults, key=lambda f: f.path)
  return SeriesIndex(series, dict(others), faults, len(entries), num_read)


def _cache_file(
  root: pathlib.Path, cache_dir: str | os.PathLike
) -> pathlib.Path:
  name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
  return pathlib.Path(cache_dir) / f'index-{name}.json.gz'


def _recall(cache: pathlib.Path) -> dict[str, list[Any]]:
  """Path below the root -> [size, mtime, header, fault]."""
  try:
    with gzip.open(cache, 'rt', encoding='utf-8') as f:
      content = json.load(f)
    known = content['files'] if content['format'] == _FORMAT else {}
    for size, mtime, header, fault in known.values():
      _check_entry(size, mtime, header, fault)
    return known
  # Not there yet, or damaged, which surfaces as any exception of gzip, zlib,
  # JSON or of what was expected: then everything is read again.
  except Exception:
    return {}


def _check_entry(size: Any, mtime: Any, header: Any, fault: Any) -> None:
  """Raises `TypeError` where a remembered entry has other fields."""
  fields = (size, mtime, *(header or ()), *(fault or ()))
  kinds = [int, int]
  if header:
    kinds += dicom_header.Header.__annotations__.values()
  if fault:
    kinds += dicom_header.Fault.__annotations__.values()
  if [type(f) for f in fields] != kinds:
    raise TypeError(f'no entry of an index: {fields!r:.80}')


def _remember(cache: pathlib.Path, files: dict[str, Iterable[Any]]) -> None:
  """Writes beside and renames, so that a reader never sees half a file."""
  cache.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile(dir=cache.parent, delete=False) as f:
    with gzip.open(f, 'wt', compresslevel=1, encoding='utf-8') as text:
      json.dump({'format': _FORMAT, 'files': files}, text)
  os.replace(f.name, cache)
