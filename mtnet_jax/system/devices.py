"""Distributes trees over the devices: replicate, share, map, gather.

A step is written for one device, and mapped over the devices of all processes.
Batches are global: every process makes the same batches, and sends each of its
own devices the device's share.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

# The axis over which steps are mapped. `jax.pmap` names the mesh axis of its
# outputs so; inputs with another sharding would compile everything twice.
AXIS = 'batch'

# XLA runs the operations of a program in an order that needs less memory: a
# quarter less in a training step. The results are the same, bit for bit.
_LEAN = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
# On accelerators, values that are rounded to bfloat16 stay rounded. By default,
# XLA may drop the rounding and then writes and reads float32: a fifth more
# bytes in a training step of Coarse Seg-net, and a fifth more memory.
ROUNDED = {'xla_allow_excess_precision': False}
# XLA does not fuse operations into calls of YNNPACK; see `forward_options`.
_WITH_EIGEN = {**_LEAN, 'xla_cpu_experimental_ynn_fusion_type': ''}


def only_device() -> jax.Device | None:
  """Returns the one device that this thread uses; None if it uses all.

  It is the device of a surrounding `with jax.default_device(...)`. This applies
  to the current thread only, so that several threads can each train a run on a
  device of their own.
  """
  # JAX adds its options to `Config` at run time.
  device = jax.config.jax_default_device  # type: ignore[attr-defined]
  return device if isinstance(device, jax.Device) else None


def device_count() -> int:
  """Returns the number of devices, of all processes, that a step runs on."""
  return jax.device_count() if only_device() is None else 1


def _local_devices():
  device = only_device()
  return jax.local_devices() if device is None else [device]


def at_precision(fn: Callable[..., Any], precision: str) -> Callable[..., Any]:
  """Returns `fn` with the precision of its matrix products set.

  Args:
    fn: any function that JAX traces.
    precision: of the float32 products in `fn` and in its gradients, as in
      `jax.default_matmul_precision`.
  """

  def traced(*args):
    with jax.default_matmul_precision(precision):
      return fn(*args)

  return traced


def mapped(
  fn: Callable[..., Any],
  *,
  precision: str,
  device: jax.Device | None = None,
  options: dict[str, Any] | None = None,
  **kwargs: Any,
) -> Callable[..., Any]:
  """Maps `fn` over the devices, with `jax.pmap` over `AXIS`.

  Args:
    fn: a function from trees of one device to trees of one device.
    precision: as in `at_precision`.
    device: the only device to use, as returned by `only_device`; None for all.
    options: compiler options, such as `lean_options`. They are ignored if there
      are several processes, because `jax.pmap` connects the processes outside
      of the program that `jax.jit` would compile. In bfloat16 on accelerators,
      several processes therefore round differently from one, unless XLA_FLAGS
      of each contains --xla_allow_excess_precision=false.
    **kwargs: other arguments of `jax.pmap`.
  """
  devices = None if device is None else [device]
  pmapped = jax.pmap(
    at_precision(fn, precision), axis_name=AXIS, devices=devices, **kwargs
  )
  if options is None or jax.process_count() > 1:
    return pmapped
  donated = kwargs.get('donate_argnums', ())
  return jax.jit(pmapped, donate_argnums=donated, compiler_options=options)


def lean_options() -> dict[str, Any] | None:
  """Returns compiler options that save memory.

  They change no result on CPUs, and no float32 result on accelerators.

  Returns:
    `compiler_options` of `jax.jit`; None if this version of XLA does not know
    them.
  """
  return _known(_LEAN)


def forward_options() -> dict[str, Any] | None:
  """Returns the compiler options for programs without gradients.

  These are `lean_options` and, on CPUs, the choice of Eigen for matrix
  products, for which XLA uses YNNPACK by default. With Eigen, forward passes of
  these networks take 5 to 19 % less time, but training steps take more, because
  their gradients are products of other layouts (docs/performance.md).

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


def replicate(tree: Any) -> Any:
  """Copies every leaf to every local device, along a new first axis."""
  devices = _local_devices()
  mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

  def copy(x):
    x = np.asarray(x)
    return jax.device_put(
      np.broadcast_to(x, (len(devices), *x.shape)), sharding
    )

  return jax.tree.map(copy, tree)


def unreplicate(tree: Any) -> Any:
  """Returns the first local device's copy of every leaf, as NumPy arrays."""
  return jax.tree.map(
    lambda x: np.asarray(x.addressable_shards[0].data)[0], tree
  )


def split(x: np.ndarray, devices: int) -> np.ndarray:
  """Reshapes (D * b, ...) to (D, b, ...), for D devices."""
  return x.reshape(devices, -1, *x.shape[1:])


def share(x: np.ndarray) -> np.ndarray:
  """Returns this process's share of a global batch, one row per local device.

  Args:
    x: (D * b, ...), for the D devices of all processes in their order.

  Returns:
    (L, b, ...), for the L local devices.
  """
  rows = split(x, device_count())
  local = len(_local_devices())
  first = jax.process_index() * local
  return rows[first : first + local]


def gather(tree: Any) -> Any:
  """Returns the global batch of which each process has a share.

  This is the inverse of `share`.

  Args:
    tree: outputs of a mapped step, (L, b, ...) for the L local devices.

  Returns:
    A tree of NumPy arrays (D * b, ...), the same on every process.
  """
  tree = jax.device_get(tree)
  if jax.process_count() > 1:
    tree = multihost_utils.process_allgather(tree, tiled=True)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
