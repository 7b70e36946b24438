"""Keeps the memory that a step on the CPU frees for the next step.

XLA allocates the memory of a step, gigabytes of it, when the step starts, and
frees it at the end. By default the GNU C library returns such large blocks to
the kernel, and gets them back page by page, zeroed: this takes a quarter of a
step's processor time. `keep` changes three things:

- The C library keeps freed blocks and uses their pages again. All threads share
  one heap, because only the main heap can hold blocks of this size.
- After a long compilation, free memory is returned to the kernel once:
  compiling leaves hundreds of megabytes in holes that are too small for a step.
- Steps are computed synchronously, when they are called. Otherwise every step
  that JAX has dispatched would hold the memory of a step while it waits.
"""

import ctypes
import importlib.util

# Parameters of `mallopt`, from <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_ACCELERATORS = (
  'jax_cuda12_plugin',
  'jax_cuda13_plugin',
  'jax_rocm7_plugin',
  'libtpu',
)
# The event of `jax.monitoring` for compiling a program or loading it.
_COMPILING = '/jax/core/compile/backend_compile_duration'
# Shorter compilations leave few holes, and searching the heap takes time.
_LONG_SECONDS = 1


def keep(*, several_processes: bool = False) -> bool:
  """Keeps freed memory in this process if JAX computes on the CPU.

  Call it before JAX is used, because JAX's threads choose their heap when they
  start. It does nothing where an accelerator's plugin is installed, or where
  the C library has no `mallopt`. It is meant for commands, which own their
  process, and not for use as a library.

  Args:
    several_processes: whether this is one of several processes. Their steps
      stay asynchronous: if another process ends, a synchronous step does not
      return before JAX aborts this process, and no error could be shown.

  Returns:
    Whether freed memory is kept from now on.
  """
  if any(map(importlib.util.find_spec, _ACCELERATORS)):
    return False
  try:
    c_library = ctypes.CDLL(None)
    mallopt, malloc_trim = c_library.mallopt, c_library.malloc_trim
  except (AttributeError, OSError, TypeError):
    return False
  settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
  # `mallopt` returns 1 where it accepts a setting.
  if not all([mallopt(name, value) == 1 for name, value in settings]):
    return False
  import jax
  from jax import monitoring

  if not several_processes:
    jax.config.update('jax_cpu_enable_async_dispatch', False)

  def give_back(event: str, duration_secs: float, **_: str | int) -> None:
    if event == _COMPILING and duration_secs >= _LONG_SECONDS:
      malloc_trim(0)

  monitoring.register_event_duration_secs_listener(give_back)
  return True
