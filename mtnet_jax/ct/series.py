"""Finds a CT series among the folders and files that a user names.

`tfds_lidc` is imported where it is needed, because the networks load without
it. Messages quote no text of a header, which could name the patient.
"""

from collections.abc import Sequence
import os
from typing import TYPE_CHECKING

from mtnet_jax.ct import dicom_volume
from mtnet_jax.system import errors

if TYPE_CHECKING:
  from tfds_lidc.ct import index as dicom_index
  from tfds_lidc.ct import series as dicom_series

# Messages list this many series: a folder of LIDC-IDRI has 1018.
_MAX_LISTED = 4

_Path = str | os.PathLike[str]


def find(
  paths: Sequence[_Path],
  *,
  series_uid: str | None = None,
  show_progress: bool = True,
) -> dicom_volume.DicomVolume:
  """Finds the only series, or the one with a UID: `read`, then `choose`."""
  index = read(paths, show_progress=show_progress)
  return choose(index, paths, series_uid=series_uid)


def read(
  paths: Sequence[_Path], *, show_progress: bool = True
) -> 'dicom_index.SeriesIndex':
  """Reads the headers of all files that a user names.

  Args:
    paths: folders, which are searched at any depth, and files.
    show_progress: whether to show a progress bar.

  Raises:
    errors.InputError: a path does not exist, or a folder cannot be listed.
  """
  from tfds_lidc import errors as lidc_errors
  from tfds_lidc import parallel
  from tfds_lidc.ct import index as series_index

  with errors.translated(lidc_errors.InputError):
    return series_index.read(
      _files(paths),
      workers=parallel.all_cores(),
      show_progress=show_progress,
    )


def usable(
  index: 'dicom_index.SeriesIndex',
) -> dict[str, 'dicom_series.Series']:
  """The series of an index that have slices, by their UIDs."""
  return {uid: found for uid, found in index.series.items() if found.slices}


def choose(
  index: 'dicom_index.SeriesIndex',
  paths: Sequence[_Path],
  *,
  series_uid: str | None = None,
) -> dicom_volume.DicomVolume:
  """Makes the volume of the only series, or of the one with a UID.

  Args:
    index: from `read`.
    paths: what was read, for messages.
    series_uid: the series; needed if there are several.

  Raises:
    errors.InputError: there is no such series; there are several, and
      `series_uid` is None; or the series cannot be used.
  """
  where = ', '.join(str(path) for path in paths)
  found = usable(index)
  if not found:
    raise _no_ct(where, index)
  listed = _first_few(
    f'{uid} ({len(s.slices)} slices{", SIMULATED" if s.simulated else ""})'
    for uid, s in sorted(found.items())
  )
  if series_uid is None and len(found) > 1:
    raise errors.InputError(
      f'{where} holds {len(found)} CT series: {listed}. Choose one with'
      ' --series=UID, or give its folder as --dicom.'
    )
  uid = series_uid or next(iter(found))
  if uid not in found:
    raise errors.InputError(
      f'{where} holds no CT series {uid}, but {listed}: give one of them as'
      ' --series.'
    )
  return dicom_volume.DicomVolume(found[uid], index.faults_near(found[uid]))


def _first_few(texts):
  """'a; b; c; d and 441 more'."""
  texts = list(texts)
  more = len(texts) - _MAX_LISTED
  listed = '; '.join(texts[:_MAX_LISTED])
  return f'{listed} and {more} more' if more > 0 else listed


def _files(paths):
  """All files below the paths, each once."""
  from tfds_lidc.ct import series

  found = []
  for path in paths:
    if os.path.isdir(path):
      found += series.files(path)
    elif os.path.isfile(path):
      found.append(os.fspath(path))
    else:
      raise errors.InputError(
        f'{path} does not exist: give the folder or files of a CT series as'
        ' --dicom.'
      )
  return list(dict.fromkeys(found))


def _no_ct(where, index):
  """The error for files of which none is a usable CT image."""
  if index.faults:
    fault = index.faults[0]
    more = len(index.faults) - 1
    found = f'{fault.path} {fault.reason}'
    if more:
      found += f' (and {more} more files cannot be used)'
  elif index.others:
    found = _first_few(
      f'{len(files)} {modality} images of series {uid}'
      for (modality, _, uid), files in sorted(index.others.items())
    )
  else:
    found = f'{index.num_files} files, none of them DICOM'
  return errors.InputError(
    f'{where} holds no CT series: {found}. Give the folder or files of one as'
    ' --dicom.'
  )
