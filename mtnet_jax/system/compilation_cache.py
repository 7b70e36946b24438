"""Keeps compiled programs on this disk, so that the next process starts fast.

JAX has this cache, but it is off by default. A folder that the user has chosen,
by JAX_COMPILATION_CACHE_DIR or `jax.config`, is kept, and
JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off.
"""

import os
import pathlib

import jax


def folder(kind):
  """A folder for what can be made again, below XDG_CACHE_HOME or ~/.cache.

  Args:
    kind: its name: 'compiled' has JAX's programs, 'native' the C++ loops.

  Returns:
    `pathlib.Path`; None where this user has no such folder that can be written,
    as in containers that run as a user without a home. A temporary folder that
    users share is no substitute: what lies there is executed.
  """
  try:
    # A user that no table of users knows has no home: RuntimeError.
    caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    path = pathlib.Path(caches, 'mtnet_jax', kind)
    path.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):
    return None
  return path if os.access(path, os.W_OK | os.X_OK) else None


def enable():
  """Turns JAX's persistent cache on, unless its folder was chosen already.

  Without a folder there is no cache: programs are compiled in each process.
  """
  if jax.config.jax_compilation_cache_dir is None:
    compiled = folder('compiled')
    if compiled is not None:
      jax.config.update('jax_compilation_cache_dir', str(compiled))
