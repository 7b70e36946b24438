"""Converts networks to the PyTorch files of `mtnet_jax.export`, and back.

Beside the tensors, such a file holds the settings of the networks as JSON.
"""

from collections.abc import Callable
from collections.abc import Mapping
import json
import os
from typing import Any

from flax import linen as nn
from flax import traverse_util
import numpy as np

from mtnet_jax.system import errors
from mtnet_jax.weights import exported_settings
from mtnet_jax.weights import names as weight_names
from mtnet_jax.weights import sources

SETTINGS = 'mtnet'
# Network of the file -> function that makes its table of names.
_LAYERS: dict[str, Callable[[Any], dict[str, str]]] = {
  'coarse_net': weight_names.mtnet_segmentation,
  'class_net': weight_names.mtnet_classification,
  'fine_net': weight_names.mtnet_segmentation,
}
_PART = {'segmentation': 'coarse_net', 'classification': 'class_net'}
_WIDTHS = ('stem_widths', 'entry_widths', 'tail_widths')
# Fields that determine the shapes of the tensors.
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


def tensors(
  part: str, net: nn.Module, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Converts the variables of a network to PyTorch's names and layouts.

  Args:
    part: 'coarse_net', 'class_net' or 'fine_net'.
    net: `mtnet.CoarseSegNet`, `ClassNet` or `FineSegNet`.
    variables: {'params', 'batch_stats'} of arrays.

  Returns:
    The state dict of the network: names without a prefix for the network.
  """
  table = _LAYERS[part](net)
  (source,) = (
    source for source in sources.SOURCES if source.layers is _LAYERS[part]
  )
  state = {}
  flat = traverse_util.flatten_dict(dict(variables), sep='/')
  for ours, value in flat.items():
    _, *path, leaf = ours.split('/')
    layer = '/'.join(path)
    value = source.to_file(ours, np.asarray(value))
    state[source.leaf(layer, table[layer], leaf)] = np.ascontiguousarray(value)
  return state


def fields(
  path: str | os.PathLike[str], metadata: Mapping[str, str], task: str
) -> dict[str, Any]:
  """Returns the fields of a task's network that a file's weights need.

  Args:
    path: path of the file, for messages.
    metadata: strings of the file's header, which are not trusted.
    task: 'segmentation' or 'classification'.

  Returns:
    Values of the fields `sources.EXPORTED_FIELDS[task]`.

  Raises:
    errors.InputError: the file has no settings, or they are damaged.
  """
  return _read(path, metadata, task, sources.EXPORTED_FIELDS[task])


def sizes(
  path: str | os.PathLike[str], metadata: Mapping[str, str], task: str
) -> dict[str, Any]:
  """Returns the fields that give the size of a task's network, as `fields`."""
  return _read(path, metadata, task, _SIZES[task])


def _read(path, metadata, task, wanted):
  if SETTINGS not in metadata:
    raise errors.InputError(
      f'{path} has the tensor names of an exported MT-Net, but no settings:'
      ' save it with `mtnet.save` of the exported mtnet.py.'
    )
  try:
    settings = json.loads(metadata[SETTINGS])
    exported_settings.check_settings(settings)
    net_settings = settings[_PART[task]]
    return {name: _hashable(net_settings[name]) for name in wanted}
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
  """Converts lists to tuples, because fields of Flax modules are hashed."""
  return tuple(value) if isinstance(value, list) else value
