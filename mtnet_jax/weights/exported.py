"""Networks as `mtnet_jax.export` writes them for PyTorch, and read back.

Beside the tensors such a file holds the settings of the networks, as JSON.
"""

import json
import math

from flax import traverse_util
import numpy as np

from mtnet_jax.system import errors
from mtnet_jax.weights import names as weight_names
from mtnet_jax.weights import sources

SETTINGS = 'mtnet'
# Tables of names by those of the networks in the file.
_LAYERS = {
  'coarse_net': weight_names.mtnet_segmentation,
  'class_net': weight_names.mtnet_classification,
  'fine_net': weight_names.mtnet_segmentation,
}
_PART = {'segmentation': 'coarse_net', 'classification': 'class_net'}
_WIDTHS = (
  'stem_widths',
  'entry_widths',
  'tail_widths',
)
# Fields that the shapes of its tensors tell.
_SIZES = {
  'segmentation': (
    *_WIDTHS,
    'middle_blocks',
    'exit_width',
    'aspp_features',
    'low_level_features',
    'decoder_features',
  ),
  'classification': (
    *_WIDTHS,
    'middle_blocks',
    'exit_width',
    'use_coarse_mask',
  ),
}
_MAX_RATE = 1024
_MAX_WIDTH, _MAX_LAYERS, _MAX_BLOCKS = 1 << 16, 32, 256


def tensors(part, net, variables):
  """Variables of a network under the names and in the shapes of the file.

  Args:
    part: 'coarse_net', 'class_net' or 'fine_net'.
    net: `mtnet.CoarseSegNet`, `ClassNet` or `FineSegNet`.
    variables: {'params', 'batch_stats'} of arrays.

  Returns:
    Name, without those of the training and the network -> NumPy array.
  """
  table = _LAYERS[part](net)
  (source,) = (
    source for source in sources.SOURCES if source.layers is _LAYERS[part]
  )
  found = {}
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  for ours, value in flat.items():
    _, *layer, leaf = ours.split('/')
    layer = '/'.join(layer)
    value = source.to_file(ours, np.asarray(value))
    found[source.leaf(layer, table[layer], leaf)] = np.ascontiguousarray(value)
  return found


def fields(path, metadata, task):
  """Fields of the network of a task that a file's weights need.

  Args:
    path: of the file, for messages.
    metadata: its texts, by name; from anyone.
    task: 'segmentation' or 'classification'.

  Returns:
    A dict of `sources.EXPORTED_FIELDS`.

  Raises:
    errors.InputError: the file has no settings, or they are damaged.
  """
  return _read(path, metadata, task, sources.EXPORTED_FIELDS[task])


def sizes(path, metadata, task):
  """Fields that say how large the network in a file is; as `fields`."""
  return _read(path, metadata, task, _SIZES[task])


def _read(path, metadata, task, wanted):
  if SETTINGS not in metadata:
    raise errors.InputError(
      f'{path} has the names of an exported MT-Net, and not its settings:'
      ' write it by `mtnet.save`, of the exported mtnet.py.'
    )
  try:
    found = json.loads(metadata[SETTINGS])[_PART[task]]
    read = {name: _checked(name, found[name]) for name in wanted}
    if task == 'segmentation' and len(read.get('entry_widths', (1, 2))) < 2:
      # The second block's features go to the decoder.
      raise ValueError('entry_widths has no second block')
    return read
  except (
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    reason = str(error)[:200]
    raise errors.InputError(
      f'{path}: its settings are damaged ({reason}): export it again.'
    ) from error


def _checked(name, value):
  """A value of a field, as the networks take it; raises where it is none."""
  if name in (*_WIDTHS, 'aspp_rates', 'input_mean', 'input_std'):
    value = tuple(value)
  if not _FITS[name](value):
    raise ValueError(f'{name} is {str(value)[:80]}')
  return value


def _is_int(value, most):
  return type(value) is int and 0 < value <= most


def _is_width(value):
  return _is_int(value, _MAX_WIDTH)


def _is_rate(value):
  return _is_int(value, _MAX_RATE)


def _is_number(value):
  return type(value) in (int, float) and math.isfinite(value)


def _is_bool(value):
  return type(value) is bool


def _are(kind):
  return lambda values: (
    0 < len(values) <= _MAX_LAYERS and all(map(kind, values))
  )


def _of_channels(kind):
  return lambda values: len(values) in (1, 3) and all(map(kind, values))


_FITS = {
  **dict.fromkeys(_WIDTHS, _are(_is_width)),
  # The public names have places for two.
  'stem_widths': lambda values: len(values) == 2 and _are(_is_width)(values),
  'aspp_rates': _are(_is_rate),
  'tail_dilation': _is_rate,
  'middle_blocks': lambda value: _is_int(value + 1, _MAX_BLOCKS),
  **dict.fromkeys(
    ('exit_width', 'aspp_features', 'low_level_features', 'decoder_features'),
    _is_width,
  ),
  **dict.fromkeys(('exit_pool', 'skip_relu', 'use_coarse_mask'), _is_bool),
  'pool_padding': lambda value: value in ('same', 'symmetric'),
  'bn_epsilon': lambda value: _is_number(value) and 0 < value < 1,
  'input_mean': _of_channels(_is_number),
  'input_std': _of_channels(lambda value: _is_number(value) and value > 0),
}
