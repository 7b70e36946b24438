"""Policies of one's own: `key=value,...` changes a config and names the result.

    python -m tfds_lidc.cohort --config=paper --policy=readers=3-4,consensus=1/2

The name follows from what differs, in a fixed order, so that the same policy
always has the same name and no two policies share one.
"""

from collections.abc import Callable
import dataclasses
import math
import re
from typing import Any

from tfds_lidc import errors
from tfds_lidc.nodules import selection

HELP = (
  'changes the config: readers=2-4, size=3-25 (mean diameter, mm; 3- has no '
  'upper end), thickness=2.5 (of slices, mm, at most), '
  'label=agreement|mean|median, unlabelled=keep|drop, consensus=2/3, '
  'slices=largest|all, split_by=patient|nodule, spacing=native|MM (resampled '
  'in the plane); several with commas'
)

_Fields = dict[str, Any]
_LONGEST = 500  # letters of a policy, with every key


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
    InputError: an unknown key, a key twice, or an invalid value.
  """
  if len(text) > _LONGEST:
    raise errors.InputError(
      f'--policy has {len(text)} letters, and takes {_LONGEST}; it {HELP}'
    )
  given = {}
  for item in filter(None, (part.strip() for part in text.split(','))):
    key, _, value = item.partition('=')
    if key not in _PARSERS:
      raise errors.InputError(
        f'--policy: {key[:80]!r} is none of {", ".join(_PARSERS)}'
      )
    if key in given:
      raise errors.InputError(f'--policy: {key} is given twice')
    try:
      given[key] = _PARSERS[key](value)
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
    name += f'-{key}_{_word(fields)}'
  if not re.fullmatch(r'[\w.-]{1,200}', name):
    raise errors.InputError(
      f'--policy: {name[:80]!r} is no name for a dataset; take numbers of fewer'
      ' digits'
    )
  return dataclasses.replace(changed, name=name)


def _word(fields: _Fields) -> str:
  """A value in the letters that TFDS takes in a name."""
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
