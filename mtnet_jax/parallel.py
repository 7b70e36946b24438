"""Trees over the local devices: replicate, split, bring back."""

import jax
import numpy as np

# The axis over which steps are mapped. `jax.pmap` gives its outputs a mesh
# axis of this name; inputs placed otherwise would compile everything twice.
AXIS = 'batch'


def replicate(tree):
  """A copy of every leaf on every local device, along a new first axis."""
  devices = jax.local_devices()
  mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

  def copy(x):
    x = np.asarray(x)
    return jax.device_put(
      np.broadcast_to(x, (len(devices), *x.shape)), sharding
    )

  return jax.tree.map(copy, tree)


def unreplicate(tree):
  """The first device's copy of every leaf, as NumPy arrays."""
  return jax.tree.map(
    lambda x: np.asarray(x.addressable_shards[0].data)[0], tree
  )


def split(x, devices):
  """(D * b, ...) -> (D, b, ...)."""
  return x.reshape(devices, -1, *x.shape[1:])
