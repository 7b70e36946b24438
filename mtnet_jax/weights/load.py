"""Public weights as variables of these networks.

What does not fit in every name and shape is an error, and nothing is loaded;
see `matching`.
"""

import dataclasses
from typing import Any

from flax import traverse_util
import jax.numpy as jnp
import numpy as np

from mtnet_jax.models import mtnet
from mtnet_jax.system import errors
from mtnet_jax.weights import files
from mtnet_jax.weights import matching


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights of a public file in the form of our networks.

  Attributes:
    variables: {'params': ..., 'batch_stats': ...} of NumPy arrays, without
      what is in `fresh`.
    fields: of the network, which these weights need, such as
      {'bn_epsilon': 0.001}: `mtnet.ClassNet(**fields)`.
    fresh: first names of the variables that the file does not have.
    dropped: names in the file without a place in our network.
    title: of the source.
  """

  variables: dict[str, Any]
  fields: dict[str, Any]
  fresh: tuple[str, ...]
  dropped: tuple[str, ...]
  title: str


def load_xception(path, net=None):
  """ImageNet weights for Class-net.

  The fourth input channel starts as the mean of the other three (paper,
  section 3.2.4); the one logit stays newly initialised.

  Args:
    path: of Keras's Xception (`.h5`, with or without top) or timm's
      legacy_xception (`.safetensors`, `.pth`).
    net: the `mtnet.ClassNet`; default: the paper's.

  Returns:
    `Weights`.

  Raises:
    errors.InputError: the file is missing, damaged, of another network, or
      does not fit in a name or shape.
  """
  return _load(path, net or mtnet.ClassNet())


def load_deeplab(path, net=None):
  """Weights for Coarse Seg-net: all of DeepLabv3+, or its backbone.

  Args:
    path: of the PyTorch DeepLabv3+ Xception-65 (`.pth`, `.safetensors`; all
      but the classifier), or, for the backbone, of timm's xception65
      (`.safetensors`, `.bin`) or TensorFlow DeepLab's checkpoint `xception_65`
      (its prefix).
    net: the `mtnet.CoarseSegNet`; default: the paper's.

  Returns:
    `Weights`.

  Raises:
    errors.InputError: the file is missing, damaged, of another network, or
      does not fit in a name or shape.
  """
  return _load(path, net or mtnet.CoarseSegNet())


def _load(path, net):
  with files.open_weights(path) as file:
    matched = matching.match_open(path, file, net)
    source = matched.source
    flat = {}
    for ours, theirs in matched.tensors.items():
      value = file.read(theirs)
      axes = matching.kernel_axes(source, ours)
      # A copy of its own, for the file's memory goes with the file.
      value = np.array(
        value if axes is None else value.transpose(axes),
        np.float32,
        order='C',
      )
      if not np.isfinite(value).all():
        raise errors.InputError(
          f'{path}: {theirs} holds values that are not finite. Nothing was'
          ' loaded; download it again.'
        )
      flat[ours] = value
  variables = traverse_util.unflatten_dict(flat, sep='/')
  if isinstance(net, mtnet.ClassNet) and net.use_coarse_mask:
    variables['params'] = _with_mask_channel(variables['params'])
  return Weights(
    variables=variables,
    fields=dict(source.fields),
    fresh=source.fresh,
    dropped=matched.dropped,
    title=source.title,
  )


def _with_mask_channel(params):
  """Adds the fourth input channel, for the mask."""
  backbone = params['backbone']
  kernel = jnp.pad(
    backbone['conv1']['kernel'], ((0, 0), (0, 0), (0, 1), (0, 0))
  )
  averaged = mtnet.average_fourth_channel(
    {**params, 'backbone': {**backbone, 'conv1': {'kernel': kernel}}}
  )
  conv1 = averaged['backbone']['conv1']
  conv1['kernel'] = np.asarray(conv1['kernel'])
  return averaged
