"""Folders of evaluations: the results of one never replace those of another.

They are named after what was evaluated, as far as a name can say it. Where a
folder of that name has results of something else, such as a dataset that was
built again or an average with another run, a hash follows the name.

A folder's records.csv and metrics.json appear together, and one process at a
time evaluates into it.
"""

import contextlib
import hashlib
import json
import os
import re

from mtnet_jax.storage import files
from mtnet_jax.storage import together
from mtnet_jax.system import errors

_RECORDS, _METRICS = 'records.csv', 'metrics.json'
# Without metrics.json: of a run that is not finished, or of an evaluation that
# an earlier version did not finish, or the user's.
_OF_OTHERS = (_RECORDS, 'config.json')
# Entries of metrics.json that say what was evaluated, beside its members.
_KEYS = ('dataset', 'fingerprint', 'split', 'limit', 'symmetries')
_HASH = 8


def _identity(results):
  """What was evaluated, of a metrics.json."""
  members = results.get('members', [])
  return {
    **{key: results.get(key) for key in _KEYS},
    'members': [member.get('id') for member in members],
  }


def _is_of(folder, results):
  """Whether the metrics.json in a folder is of this evaluation."""
  try:
    return _identity(files.read_json(folder / _METRICS)) == _identity(results)
  except (AttributeError, TypeError, errors.InputError):
    return False


def _taken_by(folder, results):
  """The file in a folder for which results may not go there; None if none."""
  if os.path.lexists(folder / _METRICS):
    return None if _is_of(folder, results) else _METRICS
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
    what = f'the results of something else (its {_METRICS} says of what)'
  else:
    what = f'a {name}, and no {_METRICS} of an evaluation beside it'
  return errors.InputError(
    f'{folder} has {what}: choose another --out, or delete it.'
  )


def _places(folder, results):
  """Where results may go: each is for where those before it are taken."""
  text = json.dumps(_identity(results), sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()
  for ending in ('', f'-{digest[:_HASH]}', f'-{digest}'):
    yield folder.with_name(folder.name + ending)


@contextlib.contextmanager
def opened(default, results, *, out=None):
  """Yields the folder for results, which no other process writes meanwhile.

  What killed evaluations left there, or in folders beside `default`, is ended
  or removed.

  Args:
    default: of `workdir.evaluation_dir`.
    results: what metrics.json will say of what was evaluated.
    out: the folder that the user chose, if any.

  Raises:
    errors.BusyError: another process evaluates into it.
    errors.InputError: it has something else, or cannot be written.
  """
  if not out:
    for path in _folders(default.parent):
      _mend_if_left(path)
  for place in [out] if out else _places(default, results):
    name = None if out else _taken_by(place, results)
    # Whoever evaluates there once more need not be waited for.
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


def write(folder, results, records):
  """Writes the results of an evaluation, all or nothing.

  Args:
    folder: of `opened`.
    results: metrics.json.
    records: of records.csv.

  Raises:
    errors.InputError: it has something else by now, or cannot be written.
  """
  _check(folder, results)
  with together.together(folder, _METRICS) as staged:
    files.write_csv(staged / _RECORDS, records)
    files.write_json(staged / _METRICS, results)


def candidates(folder):
  """Folders with results that `opened` may have yielded, with metrics.json.

  Args:
    folder: of `workdir.evaluation_dir`.

  Returns:
    A list of (folder, metrics.json).

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
  """Ends what a killed process left in a folder, unless another works there."""
  # One that cannot be mended here, such as one that may only be read, is as it
  # is: what is not whole has no metrics.json.
  with contextlib.suppress(errors.InputError, OSError):
    if any('.mtnet_jax-' in path.name[1:] for path in folder.iterdir()):
      with together.one_writer(folder):
        together.mend(folder, _METRICS)
        files.remove_leftovers(folder)
