"""The folder for the results of `predict`: which files in it are its own.

What lies there may be anybody's. Files are taken for those of an earlier use
only where an index or a table of this command stands beside them.
"""

import os

from mtnet_jax.storage import files
from mtnet_jax.storage import together
from mtnet_jax.system import errors

# Of one series; of many, beside their folders, the table and another page.
INDEX, TABLE, PAGE = 'predictions.json', 'predictions.csv', 'index.html'
SEGMENTATION, NIFTI = 'segmentation.dcm', 'segmentation.nii.gz'

# Fields of the index in all versions; the first ones had no 'made_with'.
_TEXTS = ('mtnet_jax', 'model', 'series_uid')
_LISTS = ('slices_rows_columns', 'files', 'points', 'failed')
# How the table has begun in all versions.
_HEADER = b'series_uid,patient_id,folder,nodule_id,status,'


def picture(place_id):
  """Name of the picture of a point."""
  return f'{place_id}.png'


def read_index(folder):
  """What predictions.json of a folder holds; None unless it is this command's.

  Args:
    folder: `pathlib.Path` of it.
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


def of_one_series(folder):
  """Names of the files that a use for one series left in a folder.

  Of the names in its index those that such a use gives, and no others.
  """
  index = read_index(folder)
  if index is None:
    return set()
  named = {PAGE, SEGMENTATION, NIFTI}.intersection(index['files'])
  for record in index['points']:
    name = picture(record.get('id'))
    # The first versions named pictures in their records alone.
    if name in index['files'] or name == record.get('figure'):
      named.add(name)
  return {INDEX, *_files_in(folder, named)}


def of_many_series(folder):
  """Names of the table and the page that a use for many series left there."""
  path = folder / TABLE
  if not path.is_file():
    return set()
  with files.writing(folder, '--out'), open(path, 'rb') as file:
    if file.read(len(_HEADER)) != _HEADER:
      return set()
  return {TABLE, *_files_in(folder, {PAGE})}


def _files_in(folder, names):
  # Listed, and not asked for, since a name may hold anything.
  with files.writing(folder, '--out'):
    there = list(folder.iterdir())
  return [path.name for path in there if path.name in names and path.is_file()]


def check_one(folder, place_ids, inputs, *, segmentation, nifti):
  """Refuses a folder in which a use for one series would harm a user's file.

  Args:
    folder: `pathlib.Path` of it, which need not exist.
    place_ids: of the points that it gets pictures of.
    inputs: paths of the files that are read.
    segmentation, nifti: whether it may get them.

  Raises:
    errors.InputError: a file that is there is an input, or has the name of a
      result and is of no earlier use.
  """
  if not folder.is_dir():
    return
  new = {INDEX, PAGE, *map(picture, place_ids)}
  new.update([SEGMENTATION] * segmentation + [NIFTI] * nifti)
  own = of_one_series(folder)
  found = [name for name in sorted(own | new) if (folder / name).exists()]
  read = _identities(inputs) if found else ()
  for name in found:
    if _identities([folder / name]) & read:
      raise errors.InputError(
        f'{folder / name} is an input, and results would take its place:'
        ' choose another --out.'
      )
  _refuse_others(folder, new - own)


def check_many(folder):
  """As `check_one`, of the table and the page of many series."""
  _refuse_others(folder, {TABLE, PAGE} - of_many_series(folder))


def _refuse_others(folder, names):
  # Whose the others are, the index or table says: it is named first.
  for name in sorted(names, key=lambda x: (x not in (INDEX, TABLE), x)):
    if os.path.lexists(folder / name):
      raise together.not_own(folder / name)


def _identities(paths):
  """Device and inode of files: a file has one, and any number of names."""
  found = set()
  for path in paths:
    try:
      status = os.stat(path)
    except OSError:
      # What is no longer there is not lost, either.
      continue
    found.add((status.st_dev, status.st_ino))
  return found
