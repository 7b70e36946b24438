"""Keeps the memory that programs on a CPU give back, for the next step.

XLA asks for the memory of a step when it starts, gigabytes of it, and gives it
back at the end. The GNU C library returns blocks so large to the kernel, which
hands them out page by page and zeroed: a quarter of a step's processor time.
Told to keep them, and to let all threads share one heap (others cannot hold
blocks so large), it hands out the same pages again.
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


def keep():
  """Keeps freed memory in this process, where JAX computes on the CPU.

  Before JAX is used, for its threads choose their heap when they start. Does
  nothing where an accelerator's plugin is installed, or where the C library
  has no `mallopt`. For commands, which own their process, and not for a
  library.

  Returns:
    Whether memory is kept from now on.
  """
  if any(map(importlib.util.find_spec, _ACCELERATORS)):
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return False
  settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
  # Each returns 1 where it was taken.
  return all([mallopt(name, value) == 1 for name, value in settings])
