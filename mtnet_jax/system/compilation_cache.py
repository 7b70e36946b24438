"""Keeps compiled programs on this disk, so that the next process starts fast.

JAX has this cache, but it is off by default. A folder that the user has chosen,
by JAX_COMPILATION_CACHE_DIR or `jax.config`, is kept, and
JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off.
"""

import os
import pathlib

import jax


def default_dir():
  """Where programs are kept: a folder of this user, below XDG_CACHE_HOME."""
  caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(caches, 'mtnet_jax', 'compiled')


def enable():
  """Turns JAX's persistent cache on, unless its folder was chosen already."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(default_dir()))
