"""Finds a CT series among the folders and files that a user names.

`tfds_lidc` is imported where it is needed, because the networks load without
it. No text of a header gets into a message: it could name the patient.
"""

import os

from mtnet_jax.ct import dicom_volume
from mtnet_jax.system import errors


def find(paths, *, series_uid=None, show_progress=True):
  """Finds the only series, or the one with a UID.

  Args:
    paths: folders, searched at any depth, and files.
    series_uid: which series; needed where there are several.
    show_progress: whether reading headers may show a bar.

  Returns:
    `dicom_volume.DicomVolume`.

  Raises:
    errors.InputError: there is no such series, several and none was chosen, or
      it cannot be used.
  """
  from tfds_lidc import errors as lidc_errors
  from tfds_lidc.ct import index as series_index

  where = ', '.join(str(path) for path in paths)
  with errors.translated(lidc_errors.InputError):
    index = series_index.read(_files(paths), show_progress=show_progress)
  usable = {uid: s for uid, s in index.series.items() if s.slices}
  if not usable:
    raise _no_ct(where, index)
  listed = '; '.join(
    f'{uid} ({len(s.slices)} slices{", SIMULATED" if s.simulated else ""})'
    for uid, s in sorted(usable.items())
  )
  if series_uid is None and len(usable) > 1:
    raise errors.InputError(
      f'{where} holds {len(usable)} CT series: {listed}. Say which with'
      ' --series=UID.'
    )
  uid = series_uid or next(iter(usable))
  if uid not in usable:
    raise errors.InputError(
      f'{where} holds no CT series {uid}, but {listed}: give one of them as'
      ' --series.'
    )
  return dicom_volume.DicomVolume(usable[uid], index.faults_near(usable[uid]))


def _files(paths):
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
  """The error for files without any CT image that can be used."""
  if index.faults:
    fault = index.faults[0]
    more = len(index.faults) - 1
    found = f'{fault.path} {fault.reason}'
    if more:
      found += f' (and {more} more files cannot be used)'
  elif index.others:
    found = ', '.join(
      f'{len(files)} {modality} images of series {uid}'
      for (modality, _, uid), files in sorted(index.others.items())
    )
  else:
    found = f'{index.num_files} files, none of them DICOM'
  return errors.InputError(
    f'{where} holds no CT series: {found}. Give the folder or files of one as'
    ' --dicom.'
  )
