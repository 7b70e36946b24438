"""Checks the values of a config that prediction uses without further checks.

Configs come with other people's runs and bundles, and users rarely read one
before they use it. `size_limits` bounds the sizes of networks; this module
checks the other values. Training checks its config in the same way.
"""

from collections.abc import Mapping
import math
import re
from typing import Any

from mtnet_jax.system import errors

STAGES = ('coarse', 'class', 'fine', 'joint')
# Copied from `models`, which this folder must not import; a test compares them.
ONE_OF = {
  'dtype': ('float32', 'bfloat16'),
  'matmul_precision': ('highest', 'high', 'default'),
  'strategy': (
    'mtnet',
    'shared',
    'feedback',
    'serial',
    'single',
    'cam',
    'finetune',
  ),
  'coarse_mask': ('hard', 'soft', 'none'),
}
# Far beyond any CT, and small enough that float32 can separate both limits.
_MAX_HU = 1e6
_SPACING_RANGE_MM = (0.1, 5.0)
_MAX_INT = (1 << 31) - 1
# A policy names files as in `?readers=3, nodules=FILE`.
_FILE_IN_A_NAME = re.compile(r'[?,]\s*(nodules|folds)\s*=')
_SHOWN = 40
# A config has a dozen groups of values, and building each is slow.
_MAX_GROUPS = 256


def check(config: Mapping[str, Any], *, where: str = 'config') -> None:
  """Raises `errors.InputError` naming the first value that cannot be used.

  Args:
    config: a config as a dict of dicts; any key may be missing.
    where: prefix of keys in messages.
  """
  for key, known in ONE_OF.items():
    if key in config and not _is_one_of(config[key], known):
      raise errors.InputError(
        f'{where}.{key}={_short(config[key])!r} is none of {", ".join(known)}.'
      )
  if 'window' in config:
    _check_window(config['window'], where)
  _check_count(config, 'seed', where)


def check_stored(tree: Mapping[str, Any], where: str) -> None:
  """Raises `errors.InputError` if the config of a run or bundle is unusable.

  Args:
    tree: contents of config.json; its groups are dicts.
    where: the file, for messages.
  """
  if _count_groups(tree) > _MAX_GROUPS:
    raise errors.InputError(
      f'{where} has more than {_MAX_GROUPS} groups of values, which no config'
      ' has: train again in another --workdir, or get the model again.'
    )
  check(tree, where=where)
  stages = tree['stages']
  if not isinstance(stages, list) or not all(
    _is_one_of(stage, STAGES) for stage in stages
  ):
    raise errors.InputError(
      f'{where}.stages={_short(stages)} is damaged: it must be a list of'
      f' {", ".join(STAGES)}.'
    )
  dataset, where = tree['dataset'], f'{where}.dataset'
  for key in ('limit', 'rotate_folds'):
    _check_count(dataset, key, where)
  for key in ('name', 'data_dir'):
    if not isinstance(dataset.get(key, ''), str):
      raise errors.InputError(f'{where}.{key} must be a string.')
  _check_spacing(dataset.get('spacing_mm', 0.0), where)
  # A run stores a digest in place of a file's path, so `?nodules=FILE` can only
  # come from somebody who wants a file on the reader's machine to be opened.
  if _FILE_IN_A_NAME.search(dataset.get('name', '')):
    raise errors.InputError(
      f'{where}.name={_short(dataset["name"])!r} names a file, which the config'
      ' of a run never does: it was changed. Train again in another --workdir,'
      ' or get the model again.'
    )


def _count_groups(tree):
  if isinstance(tree, dict):
    return 1 + sum(map(_count_groups, tree.values()))
  return sum(map(_count_groups, tree)) if isinstance(tree, list) else 0


def _check_window(window, where):
  values = list(window) if isinstance(window, (list, tuple)) else []
  if (
    len(values) != 2
    or not all(_is_number(hu) and abs(hu) <= _MAX_HU for hu in values)
    or not values[0] < values[1]
  ):
    raise errors.InputError(
      f'{where}.window={_short(window)} must be two values in HU, the lower one'
      ' first.'
    )


def _check_spacing(spacing_mm, where):
  low, high = _SPACING_RANGE_MM
  if not _is_number(spacing_mm) or (
    spacing_mm != 0 and not low <= spacing_mm <= high
  ):
    raise errors.InputError(
      f'{where}.spacing_mm={_short(spacing_mm)} must be from {low} to {high},'
      ' or 0 for the spacing of the scan.'
    )


def _check_count(group, key, where):
  value = group.get(key, 0)
  if type(value) is not int or not 0 <= value <= _MAX_INT:
    raise errors.InputError(
      f'{where}.{key}={_short(value)} must be a whole number, at least 0.'
    )


def _is_number(value):
  return type(value) in (int, float) and math.isfinite(value)


def _is_one_of(value, known):
  return isinstance(value, str) and value in known


def _short(value):
  """Returns the beginning of a value, for a message."""
  if isinstance(value, (list, tuple)):
    value = tuple(value[:8])
  return errors.one_line(value)[:_SHOWN]
