"""Changes a policy by `key=value,...` text, and names the result.

    python -m tfds_lidc.cohort --config=paper --policy=readers=3-4,consensus=1/2

The name lists every override that makes a difference, in a fixed order. The
same policy therefore always has the same name, and no two policies share one.
For a user's CSV file the name contains a checksum of the nodules or folds that
it means: the file's path and the order of its rows are not part of the name.
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
  'upper limit), thickness=2.5 (maximum slice thickness, mm), '
  'label=agreement|mean|median, unlabelled=keep|drop, consensus=2/3, '
  'slices=largest|all, split_by=patient|nodule, spacing=native|MM (in-plane '
  'resampling), nodules=FILE (CSV with nodule_id, seriesuid or patient_id: '
  'selects only these nodules, within the other limits), folds=FILE (CSV with '
  'one of these columns and fold: 0 to 2 train, 3 validates, 4 tests; a '
  'patient or series stands for all of its nodules); separate several with '
  'commas'
)

_Fields = dict[str, Any]
_MAX_LETTERS = 500  # of a policy with every key, without the paths of files
_MAX_PATH_LETTERS = 4096
_FILE_KEYS = ('nodules', 'folds')


def _range(
  low: str, high: str, number: Callable[[str], float]
) -> Callable[[str], _Fields]:
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
  unit = 'nodule' if lists.splits_patients(folds) else 'patient'
  return {'folds': folds, 'split_by': unit}


# Parsers by key, in the order in which the keys appear in a name.
_PARSERS: dict[str, Callable[[str], _Fields]] = {
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
    policy: the policy to start from.
    text: `key=value,...`; see `HELP`.

  Returns:
    An equal policy if nothing differs; otherwise the changed policy, whose name
    is that of `policy` plus every override that makes a difference.

  Raises:
    InputError: a key is unknown or repeated, a value is invalid, or a file
      cannot be used.
  """
  parsed: dict[str, _Fields] = {}
  for key, value in _items(text).items():
    item = f'{key}={value}'
    try:
      parsed[key] = _PARSERS[key](value)
    except errors.InputError:
      raise
    except (KeyError, ValueError, ZeroDivisionError) as e:
      raise errors.InputError(
        f'--policy: {item[:80]!r} cannot be understood; it {HELP}'
      ) from e
  changed = policy
  name = policy.name
  for key in _PARSERS:
    fields = parsed.get(key, {})
    if all(getattr(policy, field) == v for field, v in fields.items()):
      continue
    changed = dataclasses.replace(changed, **fields)
    name += f'-{key}_{_word(key, fields)}'
  if not re.fullmatch(r'[\w.-]{1,200}', name):
    raise errors.InputError(
      f'--policy: {name[:80]!r} is no name for a dataset; use numbers with '
      'fewer digits'
    )
  return dataclasses.replace(changed, name=name)


def _items(text: str) -> dict[str, str]:
  """Splits the text into values by key."""
  if len(text) > _MAX_LETTERS + len(_FILE_KEYS) * _MAX_PATH_LETTERS:
    raise _too_long(len(text))
  found: dict[str, str] = {}
  for item in filter(None, (part.strip() for part in text.split(','))):
    key, _, value = item.partition('=')
    if key not in _PARSERS:
      files = [name for name in _FILE_KEYS if name in found]
      hint = (
        f'; if the path of {files[-1]}= contains a comma, rename the file'
        if files
        else ''
      )
      raise errors.InputError(
        f'--policy: {key[:80]!r} is none of {", ".join(_PARSERS)}{hint}'
      )
    if key in found:
      raise errors.InputError(f'--policy has {key} twice; keep one')
    if key in _FILE_KEYS and not value:
      raise errors.InputError(f'--policy: {key}= needs a file')
    found[key] = value
  if {'split_by', 'folds'} <= found.keys():
    raise errors.InputError(
      '--policy: split_by and folds both say how to split; leave one out'
    )
  length = sum(len(found[key]) for key in found if key not in _FILE_KEYS)
  if length > _MAX_LETTERS:
    raise _too_long(length)
  return found


def _too_long(length: int) -> errors.InputError:
  return errors.InputError(
    f'--policy has {length} letters, but the limit is {_MAX_LETTERS}; it {HELP}'
  )


def without_paths(text: str) -> str:
  """Returns a policy's text for publication: paths are replaced by FILE."""
  return ','.join(
    f'{key}=FILE' if key in _FILE_KEYS else f'{key}={value}'
    for key, value in _items(text).items()
  )


def _word(key: str, fields: _Fields) -> str:
  """Returns a value in the letters that TFDS allows in a config name."""
  if key in _FILE_KEYS:
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
  """Returns all digits, so that slightly different values differ in name."""
  return repr(number).removesuffix('.0')
