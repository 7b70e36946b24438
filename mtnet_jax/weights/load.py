"""Public weights as variables of these networks.

Nothing is matched by guess: every tensor of a file is used or is named among
those without a place, every variable of the network is taken from the file or
is named among those that stay newly initialised. Anything else is an error, and
nothing is loaded.
"""

import dataclasses
import math
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.models import mtnet
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from mtnet_jax.weights import exported
from mtnet_jax.weights import files
from mtnet_jax.weights import sources

_SHOWN = 5

_NETS = {'segmentation': mtnet.CoarseSegNet, 'classification': mtnet.ClassNet}

_FIRST_KERNEL = 'params/backbone/conv1/kernel'


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights of a public file in the form of our networks.

  Attributes:
    variables: {'params': ..., 'batch_stats': ...} of NumPy arrays, without
      what is in `newly_initialised`.
    fields: of the network, which these weights need, such as
      {'bn_epsilon': 0.001}: `mtnet.ClassNet(**fields)`.
    newly_initialised: first names of the variables that the file does not have.
    dropped: names in the file without a place in our network.
    title: of the source.
  """

  variables: dict[str, Any]
  fields: dict[str, Any]
  newly_initialised: tuple[str, ...]
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
  return load(path, net or mtnet.ClassNet())


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
  return load(path, net or mtnet.CoarseSegNet())


def load(path, net):
  """What `load_xception` and `load_deeplab` do, for either network."""
  path = paths.expand(path)
  with files.open_weights(path) as file:
    matched = _match(path, file, net)
    source = matched.source
    flat = {}
    for ours, theirs in matched.tensors.items():
      value = np.asarray(file.read(theirs))
      _check_kind(value, file.shapes[theirs], f'{path}: {theirs}')
      # A copy of its own, for the file's memory goes with the file.
      value = np.array(
        source.to_ours(ours, value, _our_shape(source, ours, matched.shapes)),
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
  if _lacks_mask(source, net):
    variables['params'] = _with_mask_channel(variables['params'])
  return Weights(
    variables=variables,
    fields=dict(matched.fields),
    newly_initialised=source.newly_initialised,
    dropped=matched.dropped,
    title=source.title,
  )


def _check_kind(value, shape, where):
  """Refuses a tensor that is no floating numbers.

  Integers, truth values, text and records would become numbers of nobody's
  training, or an exception; an array as the type of an element adds sides.

  Raises:
    errors.InputError: it is of another kind, or of another shape than the
      file's header says.
  """
  if not jnp.issubdtype(value.dtype, jnp.floating) or value.shape != shape:
    kind = f'{value.dtype.name[:40]} of shape {value.shape}'
    raise errors.InputError(
      f'{where} holds {kind}, not floating numbers of shape {shape}. Nothing'
      ' was loaded; take the weights as they were published.'
    )


def _lacks_mask(source, net):
  """Whether the file's first kernel lacks the channel of the mask."""
  is_class_net = isinstance(net, mtnet.ClassNet)
  return is_class_net and net.use_coarse_mask and not source.has_mask


def _with_mask_channel(params):
  """Adds the fourth input channel, for the mask."""
  backbone = params['backbone']
  conv1 = jax.tree.map(jnp.asarray, backbone['conv1'])
  averaged = mtnet.average_fourth_channel(
    {**params, 'backbone': {**backbone, 'conv1': conv1}}
  )
  return jax.tree.map(np.asarray, averaged)


@dataclasses.dataclass(frozen=True)
class Match:
  """What a file is to a network, found without reading a tensor.

  Attributes:
    source: its `sources.Source`.
    fields: of the network, that its weights need.
    net: the network, with these fields.
    tensors: our variable, such as 'params/backbone/conv1/kernel' -> its name
      in the file.
    dropped: names in the file without a place in our network.
    shapes: our variable -> shape, of all variables of the network.
  """

  source: sources.Source
  fields: dict[str, Any]
  net: nn.Module
  tensors: dict[str, str]
  dropped: tuple[str, ...]
  shapes: dict[str, tuple[int, ...]]

  def parameters(self):
    """How many parameters the file gives, and how many the network has."""
    return tuple(
      sum(
        math.prod(self.shapes[name])
        for name in names
        if name.startswith('params/')
      )
      for names in (self.tensors, self.shapes)
    )


def match(path, net=None):
  """What a file would give to a network.

  Args:
    path: of the file.
    net: a `mtnet.CoarseSegNet` or `mtnet.ClassNet`; default: the one that the
      file was published for.

  Returns:
    A `Match`.

  Raises:
    errors.InputError: the file is missing, damaged, of no known source or of
      another network, or does not fit in a name or shape; the message names
      the first of each.
  """
  path = paths.expand(path)
  with files.open_weights(path) as file:
    return _match(path, file, net)


def matches(path, net=None):
  """As `match`; without a network, for every task that the file is of.

  Returns:
    A list of `Match`, one for each task that the file has a network for.
  """
  path = paths.expand(path)
  with files.open_weights(path) as file:
    tasks = [
      task
      for task in _NETS
      if net is None and sources.recognise(tuple(file.shapes), task)[0]
    ]
    if not tasks:
      return [_match(path, file, net)]
    return [_match(path, file, None, task) for task in tasks]


def _match(path, file, net, task=None):
  task = task or _task_of(net)
  source, canonical = sources.recognise(tuple(file.shapes), task)
  if source is None and task:
    # Of the other task: the message below says which.
    source, canonical = sources.recognise(tuple(file.shapes))
  if source is None:
    raise errors.InputError(
      f'{path} is of no known source ('
      f'{", ".join(s.title for s in sources.SOURCES)}). It holds'
      f' {some(file.shapes)}.'
    )
  if net is None:
    # Files of others have the published sizes.
    sizes = {}
    if source.fields is None:
      sizes = exported.sizes(path, file.metadata, source.task)
    net = _NETS[source.task](**sizes)
  if not isinstance(net, _NETS[source.task]):
    raise errors.InputError(
      f'{path} is {source.title}, for {source.task}: it does not fit'
      f' {type(net).__name__}.'
    )
  fields = source.fields
  if fields is None:
    fields = exported.fields(path, file.metadata, source.task)
  # Some of them say how many layers there are.
  net = net.clone(**fields)
  shapes = _variable_shapes(net)
  layers = source.layers(net)
  wanted = {}  # ours -> theirs, as in the tables
  for ours in shapes:
    _, *layer, leaf = ours.split('/')
    if (layer or [leaf])[0] not in source.newly_initialised:
      layer = '/'.join(layer)
      wanted[ours] = source.leaf(layer, layers[layer], leaf)
  dropped = {name for name in canonical if source.drops(canonical[name])}
  # The name in the tables -> the name in the file.
  found = {canonical[name]: name for name in canonical if name not in dropped}
  lacking = set(wanted.values()) - found.keys()
  unknown = found.keys() - set(wanted.values())
  differing = [
    f'{found[theirs]} is {file.shapes[found[theirs]]} and must be {shape}'
    for ours, theirs in wanted.items()
    if theirs in found
    and (shape := source.file_shape(ours, _our_shape(source, ours, shapes)))
    != file.shapes[found[theirs]]
  ]
  if lacking or unknown or differing:
    faults = (
      ('lacks', sorted(lacking)),
      ('has unknown', sorted(found[name] for name in unknown)),
      ('shapes differ:', differing),
    )
    raise errors.InputError(
      f'{path} ({source.title}) does not fit {type(net).__name__}: '
      + '; '.join(f'{word} {some(names)}' for word, names in faults if names)
      + '. Nothing was loaded.'
    )
  return Match(
    source=source,
    fields=fields,
    net=net,
    tensors={ours: found[theirs] for ours, theirs in wanted.items()},
    dropped=tuple(sorted(dropped)),
    shapes=shapes,
  )


def _task_of(net):
  """The task of a network; None where there is none."""
  return next((t for t, kind in _NETS.items() if isinstance(net, kind)), None)


def _variable_shapes(net):
  """Our variable -> shape."""
  inputs = 'mask' if isinstance(net, mtnet.ClassNet) else 'nothing'
  shapes = variables_lib.shapes_of(net, 64, inputs)
  flat = traverse_util.flatten_dict(dict(shapes), sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def _our_shape(source, ours, shapes):
  """The shape of a variable of ours, without what the file does not have."""
  shape = shapes[ours]
  if ours == _FIRST_KERNEL and not source.has_mask:
    shape = (*shape[:2], 3, shape[3])
  return shape


def some(names):
  """The first of many names, for a message."""
  names = list(names)
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  return ', '.join(names[:_SHOWN]) + more
