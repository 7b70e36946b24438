"""Shapes and initial values of a network's variables.

NumPy draws the random values. With `net.init`, XLA compiles a separate part of
the program for each kernel, a third of a second each, which is half of the time
before the first step. Here nothing is compiled, and the values do not depend on
the kind of device.
"""

from collections.abc import Collection
from collections.abc import Mapping
import concurrent.futures
import functools
import math
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.models import strategies

# Standard deviation of a standard normal distribution truncated at +-2.
_TRUNCATED_STD = 0.87962566103423978

FINE_LAYER = 'fine_layer'


def draw(shapes: Mapping[str, Any], seed: int) -> dict[str, Any]:
  """Draws the initial variables of a network.

  Kernels follow He et al. (2015): truncated normal, with variance 2 / fan-in.
  Scales and variances are 1, biases and means 0. A kernel depends only on the
  seed and on its own path, not on the other variables.

  Args:
    shapes: nested dict of `jax.ShapeDtypeStruct`, as from `shapes_of`.
    seed: at least 0.

  Returns:
    A dict of the same structure, of NumPy arrays.
  """
  leaves = traverse_util.flatten_dict(shapes)

  def draw(path):
    x = leaves[path]
    if path[-1] != 'kernel':
      return np.full(x.shape, _CONSTANTS[path[-1]], x.dtype)
    rng = np.random.default_rng([seed, *'/'.join(path).encode()])
    values = _truncated_normal(rng, math.prod(x.shape)) / _TRUNCATED_STD
    values *= math.sqrt(2 / _fan_in(x.shape))
    return values.reshape(x.shape).astype(x.dtype, copy=False)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    found = dict(zip(leaves, pool.map(draw, leaves), strict=True))
  return traverse_util.unflatten_dict(found)


def _truncated_normal(rng, count):
  values = rng.standard_normal(count, np.float32)
  outside = np.flatnonzero(np.abs(values) > 2)
  while len(outside):
    values[outside] = rng.standard_normal(len(outside), np.float32)
    outside = outside[np.abs(values[outside]) > 2]
  return values


_CONSTANTS = {'scale': 1, 'var': 1, 'bias': 0, 'mean': 0}


def _fan_in(shape):
  """Returns how many products each output of a kernel (k, k, C, F) sums."""
  # Only upsampling has kernels of an even side. Their taps do not overlap.
  return shape[2] if shape[0] % 2 == 0 else math.prod(shape[:3])


def input_shapes(
  inputs: str, size: int, batch_size: int = 1
) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Returns shapes and types of a network's inputs.

  Args:
    inputs: what the network receives, a name in `strategies.INPUTS`.
    size: side of the images.
    batch_size: number of images.
  """
  each = (batch_size, size, size)
  image = jax.ShapeDtypeStruct((*each, 3), jnp.float32)
  channels = strategies.INPUTS[inputs].channels
  if not channels:
    return (image,)
  return image, jax.ShapeDtypeStruct((*each, channels), jnp.float32)


def shapes_of(net: nn.Module, size: int, inputs: str) -> dict[str, Any]:
  """Returns shapes and types of a network's variables, as a nested dict.

  Args:
    net: the network.
    size: side of the images.
    inputs: what the network receives, a name in `strategies.INPUTS`.
  """
  return jax.eval_shape(
    functools.partial(net.init, train=False),
    jax.random.key(0),
    *input_shapes(inputs, size),
  )


# `shapes_of` for networks that can be hashed, as those of `nets.make_nets` can.
# Tracing a network takes longer than drawing its variables.
cached_shapes_of = functools.lru_cache(maxsize=16)(shapes_of)


def take_over_network(
  initial: Mapping[str, Any],
  trained: Mapping[str, Any],
  *,
  name: str,
  newly_initialised: Collection[str],
) -> dict[str, Any]:
  """Applies `take_over` to both collections of a stage's network.

  Args:
    initial: {'params', 'batch_stats'}.
    trained: {'params', 'batch_stats'}.
    name: name of the stage, for error messages.
    newly_initialised: as in `take_over`.

  Returns:
    {'params', 'batch_stats'}.
  """
  return {
    collection: take_over(
      tree,
      trained[collection],
      path=(name, collection),
      newly_initialised=newly_initialised,
    )
    for collection, tree in initial.items()
  }


def take_over(
  initial: Any,
  trained: Any,
  *,
  path: tuple[str, ...],
  newly_initialised: Collection[str] = (FINE_LAYER,),
) -> Any:
  """Replaces initial values by trained ones; every name and shape must match.

  Args:
    initial: nested dict of arrays, or an array.
    trained: the same structure, except for the names in `newly_initialised`.
    path: position in the whole tree, for error messages.
    newly_initialised: names at the top of `initial` that `trained` lacks. They
      keep their initial values.

  Returns:
    A tree of the structure of `initial`.

  Raises:
    ValueError: a name is in one of the trees only, or a shape differs.
  """
  where = '/'.join(path)
  if isinstance(initial, dict) != isinstance(trained, dict):
    raise ValueError(
      f'{where}: a tensor in one of the two trees, a group in the other.'
    )
  if not isinstance(initial, dict):
    if initial.shape != trained.shape:
      raise ValueError(
        f'{where}: shape {trained.shape} does not fit {initial.shape}.'
      )
    return jnp.asarray(trained, initial.dtype)
  kept = {key: initial[key] for key in initial if key in newly_initialised}
  differing = (initial.keys() - kept.keys()) ^ trained.keys()
  if differing:
    raise ValueError(
      f'{where}: in one of the two trees only: {sorted(differing)}.'
    )
  replaced = {
    key: take_over(initial[key], value, path=(*path, key), newly_initialised=())
    for key, value in trained.items()
  }
  return {**replaced, **kept}
