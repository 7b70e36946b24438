"""Lets several processes, one per host, run one program together.

The first process reads and writes all files, and sends the others what they
need over the network. Hosts therefore need no common file system, cannot read
different data, and cannot overwrite each other's files. With a single process,
every function here is a plain call.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import pickle
import sys
from typing import Any
from typing import TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from mtnet_jax.system import errors

_T = TypeVar('_T')

# The value of `coordinator` for which JAX finds the other processes itself.
AUTO = 'auto'
# How long a process that ends waits for the others to end, too.
_SHUTDOWN_SECONDS = 30


def connect(
  coordinator: str,
  *,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Connects this process to the others. Call it before JAX is used.

  Args:
    coordinator: HOST:PORT of the first process, the same for all processes;
      'auto' to get all arguments from Slurm, Open MPI or a cloud TPU; '' for a
      single process.
    num_processes: number of processes.
    process_id: index of this process, from 0.

  Raises:
    errors.InputError: the arguments contradict each other, the processes did
      not find each other, or they have different numbers of devices.
  """
  given = {'num_processes': num_processes, 'process_id': process_id}
  if not coordinator or coordinator == AUTO:
    unneeded = [f'--{key}' for key, x in given.items() if x is not None]
    if unneeded:
      raise errors.InputError(
        f'{" and ".join(unneeded)}: also give --coordinator=HOST:PORT of the'
        ' first process.'
      )
    if not coordinator:
      return
  else:
    missing = [f'--{key}' for key, x in given.items() if x is None]
    if num_processes is None or process_id is None:
      raise errors.InputError(
        f'--coordinator={coordinator} also needs {" and ".join(missing)} (on'
        f' Slurm, Open MPI and cloud TPUs, --coordinator={AUTO} is enough).'
      )
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit():
      raise errors.InputError(
        f'--coordinator={coordinator} must be HOST:PORT, such as 10.0.0.1:1234.'
      )
    if not 0 <= process_id < num_processes:
      raise errors.InputError(
        f'--process_id={process_id} must be from 0 to'
        f' {num_processes - 1} with --num_processes={num_processes}.'
      )
  automatic = coordinator == AUTO
  try:
    jax.distributed.initialize(
      None if automatic else coordinator,
      num_processes,
      process_id,
      cluster_detection_method=None if automatic else 'deactivate',
      shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
  except (RuntimeError, ValueError) as error:
    raise errors.InputError(
      f'--coordinator={coordinator}: the processes did not find each other'
      f' ({str(error).splitlines()[0]}). Check the address, and that all'
      ' processes were started.'
    ) from error
  counts = {
    sum(device.process_index == process for device in jax.devices())
    for process in range(jax.process_count())
  }
  if len(counts) > 1:
    raise errors.InputError(
      'the processes must have the same number of devices, and have'
      f' {" or ".join(map(str, sorted(counts)))}: set CUDA_VISIBLE_DEVICES.'
    )


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Exits with an error of one line if another process has ended.

  Without this, JAX would wait for the other process again, and then abort.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1 or 'RESOURCE_EXHAUSTED' in str(error):
      raise
    first = errors.one_line(str(error).splitlines()[0])[:200]
    print(
      'error: another process of this run has ended, or cannot be reached'
      f' ({first}). Start all processes again: they resume from the last'
      ' checkpoint.',
      file=sys.stderr,
      flush=True,
    )
    os._exit(1)


def is_first() -> bool:
  """Returns whether this is the process that reads and writes files."""
  return jax.process_index() == 0


def gather(value: _T) -> list[_T]:
  """Returns the values of all processes in their order, on every process.

  Args:
    value: any picklable value, which may differ between processes.
  """
  if jax.process_count() == 1:
    return [value]
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  sizes = multihost_utils.process_allgather(np.int64(len(data)))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: len(data)] = data
  rows = multihost_utils.process_allgather(padded)
  return [
    pickle.loads(row[:size].tobytes())
    for row, size in zip(rows, sizes, strict=True)
  ]


def on_first(make: Callable[[], _T]) -> _T:
  """Calls `make()` on the first process, and returns its value on all.

  The other processes wait for the value. An exception of `make` is raised on
  all processes: unchanged on the first, and as an `errors.InputError` on the
  others.

  Args:
    make: returns a value that can be pickled.
  """
  if jax.process_count() == 1:
    return make()
  value: Any = None
  error = message = None
  if is_first():
    try:
      value = make()
    except Exception as raised:
      error = raised
      message = (
        str(raised)
        if isinstance(raised, errors.InputError)
        else f'the first process failed: {raised!r}'
      )
  value, message = _broadcast((value, message))
  if error is not None:
    raise error
  if message is not None:
    raise errors.InputError(message)
  return value


def _broadcast(value):
  data = np.frombuffer(pickle.dumps(value), np.uint8)
  size = multihost_utils.broadcast_one_to_all(np.int64(len(data)))
  if not is_first():
    data = np.zeros(size, np.uint8)
  return pickle.loads(multihost_utils.broadcast_one_to_all(data).tobytes())
