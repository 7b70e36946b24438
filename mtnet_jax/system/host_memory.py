"""Keeps the memory that programs on a CPU give back, for the next step.

XLA asks for the memory of a step when it starts, gigabytes of it, and gives it
back at the end. The GNU C library returns blocks so large to the kernel, which
hands them out page by page and zeroed: a quarter of a step's processor time.
Told to keep them, and to let all threads share one heap (others cannot hold
blocks so large), it hands out the same pages again.

Compiling leaves holes, hundreds of megabytes of them, in which no step's memory
finds room: after it what is free goes back to the kernel once. And steps are
computed where they are called, not behind the caller's back: of those that
wait, each would hold the memory of a step already.
"""

import ctypes
import importlib.util

# Of <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_ACCELERATORS = (
  'jax_cuda12_plugin',
  'jax_cuda13_plugin',
  'jax_rocm7_plugin',
  'libtpu',
)
# What `jax.monitoring` calls compiling, or loading what was compiled before.
_COMPILING = '/jax/core/compile/backend_compile_duration'
# Shorter ones leave little, and going through the heap takes time.
_LONG_SECONDS = 1


def keep(*, several_processes=False):
  """Keeps freed memory in this process, where JAX computes on the CPU.

  Before JAX is used, for its threads choose their heap when they start. Does
  nothing where an accelerator's plugin is installed, or where the C library
  has no `mallopt`. For commands, which own their process, and not for a
  library.

  Args:
    several_processes: whether this is one of several. Where another one ends,
      a step that is computed where it was called does not come back in time to
      say so: JAX aborts the process first. So theirs may wait.

  Returns:
    Whether memory is kept from now on.
  """
  if any(map(importlib.util.find_spec, _ACCELERATORS)):
    return False
  try:
    c_library = ctypes.CDLL(None)
    mallopt, malloc_trim = c_library.mallopt, c_library.malloc_trim
  except (AttributeError, OSError, TypeError):
    return False
  settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
  # Each returns 1 where it was taken.
  if not all([mallopt(name, value) == 1 for name, value in settings]):
    return False
  import jax
  from jax import monitoring

  if not several_processes:
    jax.config.update('jax_cpu_enable_async_dispatch', False)

  def give_back(event, seconds, **_):
    if event == _COMPILING and seconds >= _LONG_SECONDS:
      malloc_trim(0)

  monitoring.register_event_duration_secs_listener(give_back)
  return True
