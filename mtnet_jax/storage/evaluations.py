"""Folders of evaluations: one evaluation never replaces another's results.

A folder is named after what was evaluated: dataset, split and so on. If a
folder of that name has the results of something else, such as a dataset that
was built again or an average with another run, a hash is added to the name.

The records.csv and metrics.json of a folder appear together, and one process at
a time evaluates into it.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import hashlib
import json
import os
import pathlib
import re
from typing import Any

from mtnet_jax.storage import files
from mtnet_jax.storage import together
from mtnet_jax.system import errors

_RECORDS, _METRICS = 'records.csv', 'metrics.json'
# Without a metrics.json, these belong to an unfinished run, to an unfinished
# evaluation of an earlier version, or to the user.
_OF_OTHERS = (_RECORDS, 'config.json')
# Entries of metrics.json that, with its members, identify what was evaluated.
_KEYS = ('dataset', 'fingerprint', 'split', 'limit', 'symmetries')
_HASH_LENGTH = 8


def _identity(results):
  """Returns the entries of a metrics.json that identify what was evaluated."""
  members = results.get('members', [])
  return {
    **{key: results.get(key) for key in _KEYS},
    'members': [member.get('id') for member in members],
  }


def _is_same(folder, results):
  """Returns whether a folder's metrics.json belongs to this evaluation."""
  try:
    return _identity(files.read_json(folder / _METRICS)) == _identity(results)
  except (AttributeError, TypeError, errors.InputError):
    return False


def _taken_by(folder, results):
  """Returns the file that keeps results out of a folder; None if none does."""
  if os.path.lexists(folder / _METRICS):
    return None if _is_same(folder, results) else _METRICS
  for name in _OF_OTHERS:
    if os.path.lexists(folder / name):
      return name
  return None


def _check(folder, results):
  name = _taken_by(folder, results)
  if name:
    raise _taken(folder, name)


def _taken(folder, name):
  if name == _METRICS:
    what = f'the results of another evaluation (see its {_METRICS})'
  else:
    what = f'a {name}, but no {_METRICS} of an evaluation'
  return errors.InputError(
    f'{folder} has {what}: choose another --out, or delete it.'
  )


def _places(folder, results):
  """Yields folders for results; each is used if those before it are taken."""
  text = json.dumps(_identity(results), sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()
  for ending in ('', f'-{digest[:_HASH_LENGTH]}', f'-{digest}'):
    yield folder.with_name(folder.name + ending)


@contextlib.contextmanager
def opened(
  default: pathlib.Path,
  results: Mapping[str, Any],
  *,
  out: str | os.PathLike[str] | None = None,
) -> Iterator[pathlib.Path]:
  """Yields the folder for results and locks it while the block runs.

  Evaluations that were killed there, or in folders beside `default`, are
  finished or undone first.

  Args:
    default: folder from `workdir.evaluation_dir`.
    results: the entries of metrics.json that identify what is evaluated.
    out: the folder that the user chose, if any.

  Raises:
    errors.BusyError: another process evaluates into the folder.
    errors.InputError: the folder has other results, or cannot be written.
  """
  if not out:
    for path in _folders(default.parent):
      _mend_if_left(path)
  for place in [out] if out else _places(default, results):
    name = None if out else _taken_by(place, results)
    # Skipped without the lock: another process may be evaluating there.
    if name == _METRICS:
      continue
    place = files.make_folder(place, '--out')
    with together.one_writer(place):
      together.mend(place, _METRICS)
      name = _taken_by(place, results)
      if not name:
        files.remove_leftovers(place)
        yield place
        return
  raise _taken(place, name)


def write(
  folder: pathlib.Path,
  results: Mapping[str, Any],
  records: Sequence[Mapping[str, Any]],
) -> None:
  """Writes the results of an evaluation, all or nothing.

  Args:
    folder: folder from `opened`.
    results: contents of metrics.json.
    records: rows of records.csv.

  Raises:
    errors.InputError: the folder has other results now, or cannot be written.
  """
  _check(folder, results)
  with together.together(folder, _METRICS) as staged:
    files.write_csv(staged / _RECORDS, records)
    files.write_json(staged / _METRICS, results)


def candidates(folder: pathlib.Path) -> list[tuple[pathlib.Path, Any]]:
  """Finds the folders with results that `opened` may have yielded.

  Args:
    folder: folder from `workdir.evaluation_dir`.

  Returns:
    A list of (folder, contents of metrics.json).

  Raises:
    errors.InputError: a metrics.json is damaged.
  """
  name = re.compile(re.escape(folder.name) + r'(-[0-9a-f]{8}|-[0-9a-f]{64})?')
  found = [
    path for path in _folders(folder.parent) if name.fullmatch(path.name)
  ]
  for path in found:
    _mend_if_left(path)
  return [
    (path, files.read_json(path / _METRICS))
    for path in found
    if (path / _METRICS).exists() and (path / _RECORDS).exists()
  ]


def _folders(parent):
  if not parent.is_dir():
    return []
  return sorted(path for path in parent.iterdir() if path.is_dir())


def _mend_if_left(folder):
  """Mends a folder that a killed process left, unless another works there."""
  # A folder that cannot be mended, such as a read-only one, does no harm:
  # incomplete results have no metrics.json.
  with contextlib.suppress(errors.InputError, OSError):
    if any('.mtnet_jax-' in path.name[1:] for path in folder.iterdir()):
      with together.one_writer(folder):
        together.mend(folder, _METRICS)
        files.remove_leftovers(folder)
