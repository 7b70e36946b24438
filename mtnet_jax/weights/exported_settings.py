"""Checks the settings of a model exported to PyTorch.

This module needs only Python, because it becomes part of the exported code.
"""

from collections.abc import Mapping
from typing import Any


def check_settings(settings: Mapping[str, Any]) -> None:
  """Raises `ValueError` if a setting is not what `MTNet` expects.

  Without this check a wrong value could silently give wrong predictions.
  """
  for name, is_valid in _VALID.items():
    if not is_valid(settings[name]):
      raise ValueError(f'{name} is {str(settings[name])[:80]!r}')
  for part, fields in _NETS.items():
    for name, value in settings[part].items():
      if name not in fields or not fields[name](value):
        raise ValueError(f'{part}.{name} is {str(value)[:80]!r}')


def _is_int(low, high):
  return lambda value: type(value) is int and low <= value <= high


def _is_number(value):
  return type(value) in (int, float) and abs(value) < 1e9


def _is_positive(value):
  return _is_number(value) and value > 0


def _is_fraction(value):
  return _is_number(value) and 0 <= value < 1


def _is_bool(value):
  return type(value) is bool


def _list_of(is_valid, lengths=range(1, 33)):
  return lambda values: (
    isinstance(values, (list, tuple))
    and len(values) in lengths
    and all(map(is_valid, values))
  )


def _is_window(values):
  return _list_of(_is_number, (2,))(values) and values[0] < values[1]


_WIDTH = _is_int(1, 1 << 16)
_VALID = {
  'patch_size': _is_int(1, 4096),
  'image_size': _is_int(1, 4096),
  'window': _is_window,
  'spacing_mm': lambda value: value is None or _is_positive(value),
  'coarse_mask': lambda value: value in ('hard', 'soft', 'none'),
  'temperature': _is_positive,
  'symmetries': _is_bool,
  'members': _is_int(1, 1000),
}
_XCEPTION = {
  'stem_widths': _list_of(_WIDTH, (2,)),
  'entry_widths': _list_of(_WIDTH),
  'middle_blocks': _is_int(0, 255),
  'exit_width': _WIDTH,
  'tail_widths': _list_of(_WIDTH),
  'tail_dilation': _is_int(1, 1024),
  'skip_relu': _is_bool,
  'input_mean': _list_of(_is_number, (1, 3)),
  'input_std': _list_of(_is_positive, (1, 3)),
  'bn_epsilon': lambda value: _is_positive(value) and value < 1,
  'bn_momentum': _is_fraction,
}
_SEG_NET = {
  **_XCEPTION,
  'entry_widths': _list_of(_WIDTH, range(2, 33)),
  'maps': _is_int(0, 2),
  'aspp_features': _WIDTH,
  'aspp_rates': _list_of(_is_int(1, 1024)),
  'low_level_features': _WIDTH,
  'decoder_features': _WIDTH,
  'dropout_rates': _list_of(_is_fraction, (3,)),
}
_NETS = {
  'coarse_net': _SEG_NET,
  'class_net': {
    **_XCEPTION,
    'use_coarse_mask': _is_bool,
    'exit_pool': _is_bool,
    'pool_padding': lambda value: value in ('same', 'symmetric'),
    'dropout_rate': _is_fraction,
  },
  'fine_net': _SEG_NET,
}
