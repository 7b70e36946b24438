"""Loads public weights as variables of our networks.

Nothing is guessed: a tensor of the file is either used or known to be dropped,
and a variable of the network is either in the file or known to stay newly
initialised. Any other tensor or variable is an error, and nothing is loaded.
"""

from collections.abc import Iterable
import dataclasses
import math
import os
from typing import Any

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

_Net = mtnet.CoarseSegNet | mtnet.ClassNet
_Path = str | os.PathLike[str]

_MAX_SHOWN = 5

_NETS: dict[str, type[_Net]] = {
  'segmentation': mtnet.CoarseSegNet,
  'classification': mtnet.ClassNet,
}

_FIRST_KERNEL = 'params/backbone/conv1/kernel'


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights of a public file, converted to our networks.

  Attributes:
    variables: {'params': ..., 'batch_stats': ...} of NumPy arrays, without
      the modules in `newly_initialised`.
    fields: fields of the network that these weights need, such as
      {'bn_epsilon': 0.001}: `mtnet.ClassNet(**fields)`.
    newly_initialised: top-level modules and parameters that the file lacks.
    dropped: names of tensors in the file that our network does not use.
    title: name of the source.
  """

  variables: dict[str, Any]
  fields: dict[str, Any]
  newly_initialised: tuple[str, ...]
  dropped: tuple[str, ...]
  title: str


def load_xception(path: _Path, net: mtnet.ClassNet | None = None) -> Weights:
  """Loads ImageNet weights for Class-net.

  The fourth input channel starts as the mean of the other three (paper,
  section 3.2.4). The classifier stays newly initialised.

  Args:
    path: file of Keras's Xception (`.h5`, with or without top) or timm's
      legacy_xception (`.safetensors`, `.pth`).
    net: the network; default: the paper's.

  Raises:
    errors.InputError: the file is missing, damaged or of another network, or a
      name or shape does not match.
  """
  return load(path, net or mtnet.ClassNet())


def load_deeplab(path: _Path, net: mtnet.CoarseSegNet | None = None) -> Weights:
  """Loads weights for Coarse Seg-net: all of DeepLabv3+, or its backbone.

  Args:
    path: file of the PyTorch DeepLabv3+ Xception-65 (`.pth`, `.safetensors`;
      all layers except the classifier); or, for the backbone, of timm's
      xception65 (`.safetensors`, `.bin`) or the prefix of TensorFlow DeepLab's
      checkpoint `xception_65`.
    net: the network; default: the paper's.

  Raises:
    errors.InputError: the file is missing, damaged or of another network, or a
      name or shape does not match.
  """
  return load(path, net or mtnet.CoarseSegNet())


def load(path: _Path, net: _Net) -> Weights:
  """Loads weights for either network; see `load_xception`, `load_deeplab`."""
  path = paths.expand(path)
  with files.open_weights(path) as file:
    matched = _match(path, file, net)
    source = matched.source
    flat = {}
    for ours, theirs in matched.tensors.items():
      value = np.asarray(file.read(theirs))
      _check_kind(value, file.shapes[theirs], f'{path}: {theirs}')
      # A copy, because the file's memory is unmapped when it is closed.
      value = np.array(
        source.to_ours(ours, value, _our_shape(source, ours, matched.shapes)),
        np.float32,
        order='C',
      )
      if not np.isfinite(value).all():
        raise errors.InputError(
          f'{path}: {theirs} holds values that are not finite. Nothing was'
          ' loaded: download the file again.'
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


def _check_kind(value: np.ndarray, shape: tuple[int, ...], where: str) -> None:
  """Refuses a tensor that does not hold floating-point numbers.

  Other types would turn into meaningless weights, or raise later. HDF5 also
  allows arrays as elements, which add axes to the shape.

  Raises:
    errors.InputError: the type is another, or the shape is not that of the
      file's header.
  """
  if not jnp.issubdtype(value.dtype, jnp.floating) or value.shape != shape:
    kind = f'{value.dtype.name[:40]} of shape {value.shape}'
    raise errors.InputError(
      f'{where} holds {kind}, not floating-point numbers of shape {shape}.'
      ' Nothing was loaded: use the weights as they were published.'
    )


def _lacks_mask(source, net):
  """Whether the file's first kernel lacks the channel for the mask."""
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
  """How the tensors of a file match a network, found from names and shapes.

  Attributes:
    source: source of the file.
    fields: fields of the network that the weights need.
    net: the network, with these fields.
    tensors: our variable, such as 'params/backbone/conv1/kernel' -> its name
      in the file.
    dropped: names of tensors in the file that our network does not use.
    shapes: our variable -> shape, for all variables of the network.
  """

  source: sources.Source
  fields: dict[str, Any]
  net: _Net
  tensors: dict[str, str]
  dropped: tuple[str, ...]
  shapes: dict[str, tuple[int, ...]]

  def parameters(self) -> tuple[int, int]:
    """Counts the parameters that the file has, and those of the network."""

    def count(names: Iterable[str]) -> int:
      return sum(
        math.prod(self.shapes[name])
        for name in names
        if name.startswith('params/')
      )

    return count(self.tensors), count(self.shapes)


def match(path: _Path, net: _Net | None = None) -> Match:
  """Matches a file to a network, without reading a tensor.

  Args:
    path: path of the file.
    net: the network; default: the one that the file was published for.

  Raises:
    errors.InputError: the file is missing, damaged, of an unknown source or of
      another network, or a name or shape does not match; the message lists the
      first mismatches of each kind.
  """
  path = paths.expand(path)
  with files.open_weights(path) as file:
    return _match(path, file, net)


def matches(path: _Path, net: _Net | None = None) -> list[Match]:
  """Matches a file as `match`; without a network, for each task it supports.

  Returns:
    One match for each task that the file has a network for.
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


def _match(
  path: _Path,
  file: files.WeightFile,
  net: _Net | None,
  task: str | None = None,
) -> Match:
  task = task or _task_of(net)
  source, canonical = sources.recognise(tuple(file.shapes), task)
  if source is None and task:
    # For the message below: the file may be of the other task.
    source, canonical = sources.recognise(tuple(file.shapes))
  if source is None or canonical is None:
    raise errors.InputError(
      f'{path} is of no known source: it holds {some(file.shapes)}. Give a file'
      f' of one of these: {", ".join(s.title for s in sources.SOURCES)}.'
    )
  if net is None:
    # Public files have the default sizes; exports list theirs.
    sizes = {}
    if source.fields is None:
      sizes = exported.sizes(path, file.metadata, source.task)
    net = _NETS[source.task](**sizes)
  if not isinstance(net, _NETS[source.task]):
    raise errors.InputError(
      f'{path} is {source.title}, for {source.task}: it does not fit'
      f' {type(net).__name__}. Give a file for the same task.'
    )
  fields = source.fields
  if fields is None:
    fields = exported.fields(path, file.metadata, source.task)
  # Before the shapes, because some fields change the number of layers.
  net = net.clone(**fields)
  shapes = _variable_shapes(net)
  layers = source.layers(net)
  wanted = {}  # our variable -> name in the tables
  for ours in shapes:
    _, *modules, leaf = ours.split('/')
    if (modules or [leaf])[0] not in source.newly_initialised:
      layer = '/'.join(modules)
      wanted[ours] = source.leaf(layer, layers[layer], leaf)
  dropped = {name for name in canonical if source.drops(canonical[name])}
  # Name in the tables -> name in the file.
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
    mismatches = (
      ('lacks', sorted(lacking)),
      ('has unknown', sorted(found[name] for name in unknown)),
      ('shapes differ:', differing),
    )
    raise errors.InputError(
      f'{path} ({source.title}) does not fit {type(net).__name__}: '
      + '; '.join(
        f'{what} {some(names)}' for what, names in mismatches if names
      )
      + '. Nothing was loaded: give a file of a network with these layers.'
    )
  return Match(
    source=source,
    fields=fields,
    net=net,
    tensors={ours: found[theirs] for ours, theirs in wanted.items()},
    dropped=tuple(sorted(dropped)),
    shapes=shapes,
  )


def _task_of(net: _Net | None) -> str | None:
  """Returns the task of a network; None without a network."""
  return next((t for t, kind in _NETS.items() if isinstance(net, kind)), None)


def _variable_shapes(net: _Net) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of all variables of a network, by name."""
  inputs = 'mask' if isinstance(net, mtnet.ClassNet) else 'nothing'
  shapes = variables_lib.shapes_of(net, 64, inputs)
  flat = traverse_util.flatten_dict(dict(shapes), sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def _our_shape(
  source: sources.Source, ours: str, shapes: dict[str, tuple[int, ...]]
) -> tuple[int, ...]:
  """Returns our variable's shape, without the mask if the file lacks it."""
  shape = shapes[ours]
  if ours == _FIRST_KERNEL and not source.has_mask:
    shape = (*shape[:2], 3, shape[3])
  return shape


def some(names: Iterable[str]) -> str:
  """Lists the first names of many, for a message."""
  names = list(names)
  num_more = len(names) - _MAX_SHOWN
  more = f' and {num_more} more' if num_more > 0 else ''
  return ', '.join(names[:_MAX_SHOWN]) + more
