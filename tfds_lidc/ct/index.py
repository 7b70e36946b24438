"""Indexes a download: every series below a directory.

Reading the headers of 240,000 files takes minutes, so all cores share the work
and a file caches the result. A later call only reads files that are new or have
changed (another size or modification time). A broken file does not stop the
others: the index lists it as a fault.
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
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

# Version of the cache file; increase it when entries, or what is read, change.
_FORMAT = 3
_CHUNK = 200  # files that a process reads at a time
_MIN_PARALLEL = 2000  # files; below, starting processes takes longer

_Read = tuple[dicom_header.Header | None, dicom_header.Fault | None]


class FileFault(NamedTuple):
  """A file that cannot be used, with its series if the header names it."""

  path: str
  kind: str
  reason: str
  series_uid: str | None = None
  z_mm: float | None = None


@dataclasses.dataclass(frozen=True)
class SeriesIndex:
  """The content of a directory.

  Attributes:
    series: CT by SeriesInstanceUID, without faulty slices.
    others: files of other images by (modality, patient, SeriesInstanceUID).
    faults: the files that cannot be used, sorted by path.
    num_files: number of files of any kind.
    num_read: number of files whose header was not cached but read.
  """

  series: dict[str, dicom_series.Series]
  others: dict[tuple[str, str, str], list[str]]
  faults: list[FileFault]
  num_files: int
  num_read: int

  def faults_near(self, series: dicom_series.Series) -> tuple[FileFault, ...]:
    """Returns faults that are, or may be, slices of a series.

    These are faults of the series itself, and faults without a known series in
    a folder of the series.
    """
    folders = {os.path.dirname(s.path) for s in series.slices}
    folders.add(series.folder)
    return tuple(
      fault
      for fault in self.faults
      if fault.series_uid == series.uid
      or (fault.series_uid is None and os.path.dirname(fault.path) in folders)
    )


def load(
  lidc_dir: str | os.PathLike[str],
  *,
  cache_dir: str | os.PathLike[str] | None = None,
  workers: int = 1,
  show_progress: bool = True,
) -> SeriesIndex:
  """Indexes a directory; reads only headers that are not cached.

  Args:
    lidc_dir: searched at any depth, also through links to directories.
    cache_dir: directory of the header cache; None for no cache.
    workers: number of processes that read headers.
    show_progress: whether to show a bar if it takes more than two seconds.

  Returns:
    The index.

  Raises:
    InputError: the directory is missing, empty or has no CT.
  """
  dicom_series.check_directory(lidc_dir)
  root = pathlib.Path(lidc_dir)
  cache = _cache_file(root, cache_dir) if cache_dir else None
  known = _read_cache(cache) if cache else {}
  faults = []

  def add_fault(e: OSError) -> None:
    faults.append(
      FileFault(e.filename, 'unreadable', f'cannot be listed ({e.strerror})')
    )

  stats = {}  # path -> [size, mtime in ns]
  for path in dicom_series.files(root, on_error=add_fault):
    try:
      stat = os.stat(path)
    except OSError as e:  # a broken link
      faults.append(FileFault(path, 'unreadable', f'is gone ({e.strerror})'))
      continue
    stats[path] = [stat.st_size, stat.st_mtime_ns]

  entries: dict[str, Sequence[Any]] = {}
  unread = []
  for path, stamp in stats.items():
    cached = known.get(os.path.relpath(path, root))
    if cached and cached[:2] == stamp:
      entries[path] = cached[2:]
    else:
      unread.append(path)
  try:
    _read_all(unread, entries, workers, show_progress)
  finally:  # so that the next call resumes after an interruption
    found_ct = any(h and h[0] == 'CT' for h, _ in entries.values())
    if cache and found_ct and (unread or len(known) != len(entries)):
      _write_cache(
        cache,
        {
          os.path.relpath(path, root): [*stats[path], *entry]
          for path, entry in entries.items()
        },
      )
  if not found_ct:
    raise errors.InputError(
      f'no CT series below {lidc_dir} (0 CT images among {len(stats)} files); '
      'give the folder that contains the DICOM files of LIDC-IDRI'
    )
  return _join(entries, faults, len(unread))


def read(
  paths: Sequence[str], *, workers: int = 1, show_progress: bool = True
) -> SeriesIndex:
  """Indexes the given files, without a cache.

  Args:
    paths: files of any kind.
    workers: number of processes that read headers.
    show_progress: whether to show a bar if it takes more than two seconds.

  Returns:
    The index, which may be empty.
  """
  entries: dict[str, Sequence[Any]] = {}
  _read_all(list(paths), entries, workers, show_progress)
  return _join(entries, [], len(entries))


def _read_all(
  paths: list[str],
  entries: dict[str, Sequence[Any]],
  workers: int,
  show_progress: bool,
) -> None:
  """Reads headers and adds them to `entries` one after another."""
  chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
  with tqdm.tqdm(
    total=len(paths),
    desc='reading DICOM headers',
    unit='file',
    delay=2,
    leave=False,
    disable=None if show_progress else True,  # None means only on a terminal
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
  """Groups files by series; `faults` belong to files without an entry."""
  slices = collections.defaultdict(list)
  folders = collections.defaultdict(set)
  others = collections.defaultdict(list)
  patients, simulated = {}, set()
  # Broken files come first, so that headers of intact files override theirs.
  for path, (fields, fault) in sorted(
    entries.items(), key=lambda entry: not entry[1][1]
  ):
    header = dicom_header.Header(*fields) if fields else None
    if fault:
      where = (header.series_uid, header.z_mm) if header else ()
      faults.append(FileFault(path, *fault, *where))
    if not header:
      continue
    uid = header.series_uid
    if header.modality != 'CT':
      others[header.modality, header.patient_id, uid].append(path)
      continue
    # A series with broken files only is still listed, without slices.
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
  root: pathlib.Path, cache_dir: str | os.PathLike[str]
) -> pathlib.Path:
  name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
  return pathlib.Path(cache_dir) / f'index-{name}.json.gz'


def _read_cache(cache: pathlib.Path) -> dict[str, list[Any]]:
  """Returns [size, mtime, header, fault] by path below the root."""
  try:
    with gzip.open(cache, 'rt', encoding='utf-8') as f:
      content = json.load(f)
    known = content['files'] if content['format'] == _FORMAT else {}
    for size, mtime, header, fault in known.values():
      _check_entry(size, mtime, header, fault)
    return known
  # Everything is read again if the cache is missing or damaged, which can raise
  # any exception of gzip, zlib, JSON or of the lookups above.
  except Exception:
    return {}


def _check_entry(size: Any, mtime: Any, header: Any, fault: Any) -> None:
  """Raises `TypeError` if a cached entry has other types."""
  fields = (size, mtime, *(header or ()), *(fault or ()))
  kinds: list[Any] = [int, int]
  if header:
    kinds += dicom_header.Header.__annotations__.values()
  if fault:
    kinds += dicom_header.Fault.__annotations__.values()
  if [type(f) for f in fields] != kinds:
    raise TypeError(f'no entry of an index: {fields!r:.80}')


def _write_cache(
  cache: pathlib.Path, files: Mapping[str, Iterable[Any]]
) -> None:
  """Writes another file and renames it, so that nobody reads half a file."""
  cache.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.NamedTemporaryFile(dir=cache.parent, delete=False) as f:
    with gzip.open(f, 'wt', compresslevel=1, encoding='utf-8') as text:
      json.dump({'format': _FORMAT, 'files': files}, text)
  os.replace(f.name, cache)
