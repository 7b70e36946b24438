"""Which files in the output folder of `predict` belong to the command.

The folder may hold files of the user. A file counts as a result of an earlier
run only if the index or the table of that run is beside it.
"""

from collections.abc import Iterable
import os
import pathlib
from typing import Any

from mtnet_jax.storage import files
from mtnet_jax.storage import together
from mtnet_jax.system import errors

# The index belongs to one series, and the table to many series, beside their
# folders. Both have a page.
INDEX, TABLE, PAGE = 'predictions.json', 'predictions.csv', 'index.html'
SEGMENTATION, NIFTI = 'segmentation.dcm', 'segmentation.nii.gz'

# Fields that the index has in every version; the first ones had no 'made_with'.
_TEXTS = ('mtnet_jax', 'model', 'series_uid')
_LISTS = ('slices_rows_columns', 'files', 'points', 'failed')
# The table begins like this in every version.
_HEADER = b'series_uid,patient_id,folder,nodule_id,status,'


def picture_name(place_id: object) -> str:
  """The file name of a point's picture."""
  return f'{place_id}.png'


def read_index(folder: pathlib.Path) -> dict[str, Any] | None:
  """The content of a folder's predictions.json.

  None if there is no such file, or if this command did not write it.
  """
  path = folder / INDEX
  if not path.is_file():
    return None
  try:
    index = files.read_json(path)
  except errors.InputError:
    return None
  return index if _is_own(index) else None


def _is_own(index):
  return (
    isinstance(index, dict)
    and all(isinstance(index.get(name), str) for name in _TEXTS)
    and all(isinstance(index.get(name), list) for name in _LISTS)
    and all(isinstance(name, str) for name in index['files'])
    and all(isinstance(record, dict) for record in index['points'])
  )


def series_files(folder: pathlib.Path) -> set[str]:
  """Names of the files that an earlier run for one series left in a folder.

  These are the names in its index that this command gives to its files. Other
  names in an index are ignored, because the file may have been edited.
  """
  index = read_index(folder)
  if index is None:
    return set()
  named = {PAGE, SEGMENTATION, NIFTI}.intersection(index['files'])
  for record in index['points']:
    name = picture_name(record.get('id'))
    # The first versions named pictures in their records only.
    if name in index['files'] or name == record.get('figure'):
      named.add(name)
  return {INDEX, *_files_in(folder, named)}


def summary_files(folder: pathlib.Path) -> set[str]:
  """Names of the table and the page that a run for many series left there."""
  path = folder / TABLE
  if not path.is_file():
    return set()
  with files.writing(folder, '--out'), open(path, 'rb') as file:
    if file.read(len(_HEADER)) != _HEADER:
      return set()
  return {TABLE, *_files_in(folder, {PAGE})}


def _files_in(folder, names):
  """The names that are files of the folder itself."""
  # The folder is listed, because a name may hold a path.
  with files.writing(folder, '--out'):
    there = list(folder.iterdir())
  return [path.name for path in there if path.name in names and path.is_file()]


def check_series_folder(
  folder: pathlib.Path,
  place_ids: Iterable[str],
  inputs: Iterable[str | os.PathLike[str]],
  *,
  segmentation: bool,
  nifti: bool,
) -> None:
  """Refuses a folder where results of one series would replace a user's file.

  Args:
    folder: the output folder, which need not exist.
    place_ids: ids of the points that get pictures.
    inputs: files that the command reads.
    segmentation: whether a DICOM Segmentation may be written.
    nifti: whether a NIfTI label map may be written.

  Raises:
    errors.InputError: an input is among the files that would be replaced, or a
      file has the name of a result but is not of an earlier run.
  """
  if not folder.is_dir():
    return
  new = {INDEX, PAGE, *map(picture_name, place_ids)}
  new.update([SEGMENTATION] * segmentation + [NIFTI] * nifti)
  own = series_files(folder)
  found = [name for name in sorted(own | new) if (folder / name).exists()]
  input_ids = _identities(inputs) if found else set()
  for name in found:
    if _identities([folder / name]) & input_ids:
      raise errors.InputError(
        f'{folder / name} is an input, which results would replace: choose'
        ' another --out.'
      )
  _refuse_others(folder, new - own)


def check_summary_folder(folder: pathlib.Path) -> None:
  """Like `check_series_folder`, for the table and the page of many series."""
  _refuse_others(folder, {TABLE, PAGE} - summary_files(folder))


def _refuse_others(folder, names):
  """Refuses a folder that holds one of these names."""
  # The index or the table is named first, because it says whose the others are.
  for name in sorted(names, key=lambda x: (x not in (INDEX, TABLE), x)):
    if os.path.lexists(folder / name):
      raise together.not_own(folder / name)


def _identities(paths):
  """(device, inode) of files, which a file keeps under any of its names."""
  found = set()
  for path in paths:
    try:
      status = os.stat(path)
    except OSError:
      # A file that is gone cannot be replaced.
      continue
    found.add((status.st_dev, status.st_ino))
  return found
