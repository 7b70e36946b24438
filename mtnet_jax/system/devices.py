"""Trees over the devices: replicate, split, map, gather.

A step is written for one device and mapped over all devices of all processes.
Its batches are global: every process makes the same batches and passes its own
devices their share.
"""

import functools

import jax
from jax.experimental import multihost_utils
import numpy as np

# The axis over which steps are mapped. `jax.pmap` gives its outputs a mesh
# axis of this name; inputs placed otherwise would compile everything twice.
AXIS = 'batch'

# XLA runs the operations of a program in an order that needs little memory: a
# quarter less in a training step. The results are the same, bit for bit.
_LEAN = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
# On accelerators values that are rounded to bfloat16 stay rounded. By default
# XLA may drop the rounding, and then writes and reads float32: a fifth more
# bytes in a training step of Coarse Seg-net, and as much more memory.
ROUNDED = {'xla_allow_excess_precision': False}
# XLA fuses no operations into calls of YNNPACK; see `forward_options`.
_WITH_EIGEN = {**_LEAN, 'xla_cpu_experimental_ynn_fusion_type': ''}


def only_device():
  """The one device that this thread uses, or None for all.

  It is the device of a surrounding `with jax.default_device(...)`, which holds
  for its thread only, so that several threads can each train a run on a device
  of their own.
  """
  device = jax.config.jax_default_device
  return device if isinstance(device, jax.Device) else None


def device_count():
  """Devices, of all processes, over which steps are mapped here."""
  return jax.device_count() if only_device() is None else 1


def _local_devices():
  device = only_device()
  return jax.local_devices() if device is None else [device]


def at_precision(fn, precision):
  """`fn`, traced with matrix products of a precision.

  Args:
    fn: any function.
    precision: of float32 products in `fn` and its gradients, a value of
      `jax.default_matmul_precision`.
  """

  def traced(*args):
    with jax.default_matmul_precision(precision):
      return fn(*args)

  return traced


def mapped(fn, *, precision, device=None, options=None, **kwargs):
  """`jax.pmap` of `fn` over `AXIS`.

  Args:
    fn: takes and returns trees of one device.
    precision: as in `at_precision`.
    device: of `only_device`.
    options: compiler options, such as `lean_options`. Several processes ignore
      them, because `jax.pmap` joins the processes outside of the program that
      `jax.jit` would compile. In bfloat16 on accelerators several processes
      therefore round differently from one, unless XLA_FLAGS of each holds
      --xla_allow_excess_precision=false.
    **kwargs: of `jax.pmap`.
  """
  devices = None if device is None else [device]
  pmapped = jax.pmap(
    at_precision(fn, precision), axis_name=AXIS, devices=devices, **kwargs
  )
  if options is None or jax.process_count() > 1:
    return pmapped
  donated = kwargs.get('donate_argnums', ())
  return jax.jit(pmapped, donate_argnums=donated, compiler_options=options)


def lean_options():
  """`compiler_options` of `jax.jit` that save memory.

  They change no result on CPUs, and no float32 result on accelerators.

  Returns:
    A dict; None where XLA does not know them.
  """
  return _known(_LEAN)


def forward_options():
  """`lean_options` and more, for programs without gradients.

  On CPUs XLA computes matrix products with YNNPACK by default. With Eigen,
  whole forward passes of these networks take 5 to 19 % less time, but training
  steps take more, because their gradients are products of other layouts
  (docs/performance.md).

  Returns:
    As `lean_options`.
  """
  return _known(_WITH_EIGEN)


def _known(on_cpu):
  options = on_cpu if jax.default_backend() == 'cpu' else ROUNDED
  return options if _are_known(tuple(options.items())) else None


@functools.cache
def _are_known(options):
  try:
    jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True


def replicate(tree):
  """A copy of every leaf on every local device, along a new first axis."""
  devices = _local_devices()
  mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

  def copy(x):
    x = np.asarray(x)
    return jax.device_put(
      np.broadcast_to(x, (len(devices), *x.shape)), sharding
    )

  return jax.tree.map(copy, tree)


def unreplicate(tree):
  """The first local device's copy of every leaf, as NumPy arrays."""
  return jax.tree.map(
    lambda x: np.asarray(x.addressable_shards[0].data)[0], tree
  )


def split(x, devices):
  """(D * b, ...) -> (D, b, ...)."""
  return x.reshape(devices, -1, *x.shape[1:])


def share(x):
  """This process's part of a global batch, one row per local device.

  Args:
    x: (D * b, ...) for the D devices of all processes, in their order.

  Returns:
    (local D, b, ...).
  """
  rows = split(x, device_count())
  local = len(_local_devices())
  first = jax.process_index() * local
  return rows[first : first + local]


def gather(tree):
  """The global batch, of which every process holds a share: undoes `share`.

  Args:
    tree: of (local D, b, ...) outputs of a mapped step.

  Returns:
    A tree of (D * b, ...) NumPy arrays, the same on every process.
  """
  tree = jax.device_get(tree)
  if jax.process_count() > 1:
    tree = multihost_utils.process_allgather(tree, tiled=True)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
