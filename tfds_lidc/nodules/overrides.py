"""Policies of one's own: `key=value,...` changes a config and names the result.

    python -m tfds_lidc.cohort --config=paper --policy=readers=3-4,consensus=1/2

The name follows from what differs, in a fixed order, so that the same policy
always has the same name and no two policies share one. Of a list of one's own
it holds a checksum of what the list means: neither the file's place nor the
order of its rows is part of the name.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import math
import re
from typing import Any

from tfds_lidc import errors
from tfds_lidc.nodules import lists
from tfds_lidc.nodules import selection

HELP = (
  'changes the config: readers=2-4, size=3-25 (mean diameter, mm; 3- has no '
  'upper end), thickness=2.5 (of slices, mm, at most), '
  'label=agreement|mean|median, unlabelled=keep|drop, consensus=2/3, '
  'slices=largest|all, split_by=patient|nodule, spacing=native|MM (resampled '
  'in the plane), nodules=FILE (CSV; only those of its nodule_id, seriesuid or '
  'patient_id, as far as the rest lets them), folds=FILE (CSV; one of these '
  'columns, and fold: 0 to 2 train, 3 validates, 4 tests; with patients or '
  'series that it names, all of their nodules); several with commas'
)

_Fields = dict[str, Any]
_LONGEST = 500  # letters of a policy, with every key, without files
_LONGEST_PATH = 4096
_FILES = ('nodules', 'folds')


def _range(low: str, high: str, number: type) -> Callable[[str], _Fields]:
  def parse(text: str) -> _Fields:
    first, dash, last = text.partition('-')
    if not dash:
      last = first
    return {low: number(first), high: number(last) if last else math.inf}

  return parse


def _choice(field: str, **values: Any) -> Callable[[str], _Fields]:
  return lambda text: {field: values[text]}


def _consensus(text: str) -> _Fields:
  num, den = map(int, text.split('/'))
  divisor = math.gcd(num, den)
  return {'consensus': (num // divisor, den // divisor)}


def _spacing(text: str) -> _Fields:
  return {'spacing_mm': None if text == 'native' else float(text)}


def _nodules(path: str) -> _Fields:
  return {'nodules': lists.read_nodules(path)}


def _folds(path: str) -> _Fields:
  folds = lists.read_folds(path)
  unit = 'nodule' if lists.parts_patients(folds) else 'patient'
  return {'folds': folds, 'split_by': unit}


# In the order of the name.
_PARSERS = {
  'readers': _range('min_readers', 'max_readers', int),
  'size': _range('min_diameter_mm', 'max_diameter_mm', float),
  'thickness': lambda text: {'max_thickness_mm': float(text)},
  'label': lambda text: {'label_rule': text},
  'unlabelled': _choice('keep_unlabelled', keep=True, drop=False),
  'consensus': _consensus,
  'slices': lambda text: {'slices': text},
  'split_by': lambda text: {'split_by': text},
  'spacing': _spacing,
  'nodules': _nodules,
  'folds': _folds,
}


def apply(policy: selection.Policy, text: str) -> selection.Policy:
  """Changes a policy.

  Args:
    policy: what to start from.
    text: `key=value,...`; see `HELP`.

  Returns:
    The policy itself where nothing differs; else another, whose name is that of
    `policy` and of every override that makes a difference.

  Raises:
    InputError: an unknown key, a key twice, or an invalid value; a file that
      cannot be used.
  """
  given = {}
  for key, value in _items(text).items():
    item = f'{key}={value}'
    try:
      given[key] = _PARSERS[key](value)
    except errors.InputError:
      raise
    except (KeyError, ValueError, ZeroDivisionError) as e:
      raise errors.InputError(
        f'--policy: {item[:80]!r} cannot be understood; it {HELP}'
      ) from e
  changed = policy
  name = policy.name
  for key in _PARSERS:
    fields = given.get(key, {})
    if all(getattr(policy, field) == v for field, v in fields.items()):
      continue
    changed = dataclasses.replace(changed, **fields)
    name += f'-{key}_{_word(key, fields)}'
  if not re.fullmatch(r'[\w.-]{1,200}', name):
    raise errors.InputError(
      f'--policy: {name[:80]!r} is no name for a dataset; take numbers of fewer'
      ' digits'
    )
  return dataclasses.replace(changed, name=name)


def _items(text: str) -> dict[str, str]:
  """Key -> value, as text."""
  if len(text) > _LONGEST + len(_FILES) * _LONGEST_PATH:
    raise _too_long(len(text))
  found = {}
  for item in filter(None, (part.strip() for part in text.split(','))):
    key, _, value = item.partition('=')
    if key not in _PARSERS:
      cut = [name for name in _FILES if name in found]
      hint = (
        f'; or does the path of {cut[-1]}= have a comma? Then rename the file'
        if cut
        else ''
      )
      raise errors.InputError(
        f'--policy: {key[:80]!r} is none of {", ".join(_PARSERS)}{hint}'
      )
    if key in found:
      raise errors.InputError(f'--policy: {key} is given twice')
    if key in _FILES and not value:
      raise errors.InputError(f'--policy: {key}= needs a file')
    found[key] = value
  if {'split_by', 'folds'} <= found.keys():
    raise errors.InputError(
      '--policy: split_by and folds both say how to split; leave one out'
    )
  length = sum(len(found[key]) for key in found if key not in _FILES)
  if length > _LONGEST:
    raise _too_long(length)
  return found


def _too_long(length: int) -> errors.InputError:
  return errors.InputError(
    f'--policy has {length} letters, and takes {_LONGEST}; it {HELP}'
  )


def without_paths(text: str) -> str:
  """A policy's text as others may read it, with no path of this machine."""
  return ','.join(
    f'{key}=FILE' if key in _FILES else f'{key}={value}'
    for key, value in _items(text).items()
  )


def _word(key: str, fields: _Fields) -> str:
  """A value in the letters that TFDS takes in a name."""
  if key in _FILES:
    lines = (
      row if isinstance(row, str) else ','.join(map(str, row))
      for row in fields[key]
    )
    digest = hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:10]
    by_nodule = fields.get('split_by') == 'nodule'
    return f'by_nodule_{digest}' if by_nodule else digest
  values = list(fields.values())
  if len(values) == 2:
    low, high = values
    if high == math.inf:
      return f'{_digits(low)}_up'
    return f'{_digits(low)}_to_{_digits(high)}'
  (value,) = values
  if isinstance(value, tuple):
    return '_of_'.join(map(str, value))
  if isinstance(value, bool):
    return 'keep' if value else 'drop'
  if value is None:
    return 'native'
  return (
    re.sub(r'\W', '', value)
    if isinstance(value, str)
    else f'{_digits(value)}mm'
  )


def _digits(number: float) -> str:
  """All digits of a number: policies that differ in the tenth differ."""
  return repr(number).removesuffix('.0')
