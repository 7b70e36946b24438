"""Folders of evaluations: the results of one never replace those of another.

They are named after what was evaluated, as far as a name can say it. Where a
folder of that name has results of something else, such as a dataset that was
built again or an average with another run, a hash follows the name.
"""

import hashlib
import json
import re

from mtnet_jax.storage import files
from mtnet_jax.system import errors

_RECORDS, _METRICS = 'records.csv', 'metrics.json'
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


def _is_free(folder, results):
  """Whether results may go into a folder: there are none, or of the same."""
  if not (folder / _METRICS).exists():
    return True
  try:
    return _identity(files.read_json(folder / _METRICS)) == _identity(results)
  except (AttributeError, TypeError, errors.InputError):
    return False


def choose(folder, results):
  """Where results go.

  Args:
    folder: of `workdir.evaluation_dir`.
    results: a metrics.json, or what it will say of what was evaluated.

  Returns:
    `folder`, or one beside it with a longer name.
  """
  text = json.dumps(_identity(results), sort_keys=True)
  digest = hashlib.sha256(text.encode()).hexdigest()
  for ending in ('', f'-{digest[:_HASH]}'):
    found = folder.with_name(folder.name + ending)
    if _is_free(found, results):
      return found
  return folder.with_name(f'{folder.name}-{digest}')


def check_out(folder, results):
  """Refuses a folder that the user chose, if it has other results.

  Raises:
    errors.InputError: it has.
  """
  if not _is_free(folder, results):
    raise errors.InputError(
      f'{folder} has the results of something else (its {_METRICS} says of'
      ' what): choose another --out, or delete it.'
    )


def candidates(folder):
  """Folders with results that `choose` may have returned, with metrics.json.

  Args:
    folder: of `workdir.evaluation_dir`.

  Returns:
    A list of (folder, metrics.json).

  Raises:
    errors.InputError: a metrics.json is damaged.
  """
  name = re.compile(re.escape(folder.name) + r'(-[0-9a-f]{8}|-[0-9a-f]{64})?')
  beside = sorted(folder.parent.iterdir()) if folder.parent.is_dir() else []
  return [
    (path, files.read_json(path / _METRICS))
    for path in beside
    if name.fullmatch(path.name) and (path / _RECORDS).exists()
  ]
