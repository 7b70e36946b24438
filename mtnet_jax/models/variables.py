"""Variables of a network: their shapes, random values, and trained ones.

Random values are drawn by NumPy. `net.init` draws each kernel by a part of the
program of its own, and XLA takes a third of a second to compile each: half of
the time to a first step. Here nothing is compiled, and processors of every kind
draw the same numbers.
"""

import concurrent.futures
import functools
import math

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.models import strategies

# The standard deviation of a normal distribution cut off at two of its own.
_CUT_STD = 0.87962566103423978

FINE_LAYER = 'fine_layer'


def draw(shapes, seed):
  """Variables of a network before it has learned anything.

  Kernels are He et al.'s (2015): truncated normal, variance 2 / fan in. Scales
  and variances are 1, biases and means 0. Each kernel follows from the seed and
  its own path, whatever else the network has.

  Args:
    shapes: nested dict of `jax.ShapeDtypeStruct`, of `net.init`.
    seed: from 0.

  Returns:
    The same dict of NumPy arrays.
  """
  leaves = traverse_util.flatten_dict(shapes)

  def draw(path):
    x = leaves[path]
    if path[-1] != 'kernel':
      return np.full(x.shape, _CONSTANTS[path[-1]], x.dtype)
    rng = np.random.default_rng([seed, *'/'.join(path).encode()])
    values = _truncated_normal(rng, math.prod(x.shape)) / _CUT_STD
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
  """How many products add up in a pixel, of a kernel (k, k, C, F)."""
  # Kernels of an even side are those of upsampling, whose taps do not overlap.
  return shape[2] if shape[0] % 2 == 0 else math.prod(shape[:3])


def input_shapes(inputs, size, batch_size=1):
  """Shapes and types of what a network receives.

  Args:
    inputs: beside the image, of `strategies.INPUTS`.
    size: side of the images.
    batch_size: how many of them.
  """
  each = (batch_size, size, size)
  image = jax.ShapeDtypeStruct((*each, 3), jnp.float32)
  channels = strategies.INPUTS[inputs].channels
  if not channels:
    return (image,)
  return image, jax.ShapeDtypeStruct((*each, channels), jnp.float32)


def shapes_of(net, size, inputs):
  """Shapes and types of a network's variables, a nested dict.

  Args:
    net: network.
    size, inputs: as in `input_shapes`.
  """
  return jax.eval_shape(
    functools.partial(net.init, train=False),
    jax.random.key(0),
    *input_shapes(inputs, size),
  )


# For networks of a config, which can be hashed: their sizes are tuples. Tracing
# a network takes longer than drawing its variables.
cached_shapes_of = functools.lru_cache(maxsize=16)(shapes_of)


def take_over_network(initial, trained, *, name, newly_initialised):
  """`take_over` of each collection of a stage's network.

  Args:
    initial, trained: {'params', 'batch_stats'}.
    name: of the stage, for messages.
    newly_initialised: as in `take_over`.
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


def take_over(initial, trained, *, path, newly_initialised=(FINE_LAYER,)):
  """`initial` with every leaf of `trained`.

  Args:
    initial: nested dict of arrays.
    trained: the same, without the names in `newly_initialised`.
    path: where in the tree this is, for messages.
    newly_initialised: names that only `initial` has at its top, and that stay
      as they are.

  Returns:
    A tree of the structure of `initial`.

  Raises:
    ValueError: anything else is on one side only, or a shape differs.
  """
  where = '/'.join(path)
  if isinstance(initial, dict) != isinstance(trained, dict):
    raise ValueError(f'{where}: a leaf on one side, a group on the other.')
  if not isinstance(initial, dict):
    if initial.shape != trained.shape:
      raise ValueError(
        f'{where}: shape {trained.shape} does not fit {initial.shape}.'
      )
    return jnp.asarray(trained, initial.dtype)
  kept = {key: initial[key] for key in initial if key in newly_initialised}
  differing = (initial.keys() - kept.keys()) ^ trained.keys()
  if differing:
    raise ValueError(f'{where}: on one side only: {sorted(differing)}.')
  taken = {
    key: take_over(initial[key], value, path=(*path, key), newly_initialised=())
    for key, value in trained.items()
  }
  return {**taken, **kept}
