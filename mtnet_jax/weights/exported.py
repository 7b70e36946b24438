"""Networks as `mtnet_jax.export` writes them for PyTorch, and read back.

Beside the tensors such a file holds the settings of the networks, as JSON.
"""

import json

from flax import traverse_util
import numpy as np

from mtnet_jax.system import errors
from mtnet_jax.weights import exported_settings
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
_WIDTHS = ('stem_widths', 'entry_widths', 'tail_widths')
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
    settings = json.loads(metadata[SETTINGS])
    exported_settings.check_settings(settings)
    found = settings[_PART[task]]
    return {name: _hashable(found[name]) for name in wanted}
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    reason = str(error)[:200]
    raise errors.InputError(
      f'{path}: its settings are damaged ({reason}): export it again.'
    ) from error


def _hashable(value):
  """A value of a field as networks take it."""
  return tuple(value) if isinstance(value, list) else value
