"""Keeps compiled programs on this disk, so that the next process starts fast.

JAX has this cache, but it is off by default. A folder that the user has chosen,
by JAX_COMPILATION_CACHE_DIR or `jax.config`, is kept, and
JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off.
"""

import os
import pathlib
import stat

import jax


def folder(kind):
  """A folder for what can be made again, below XDG_CACHE_HOME or ~/.cache.

  Args:
    kind: its name: 'compiled' has JAX's programs, 'native' the C++ loops.

  Returns:
    `pathlib.Path`; None where this user has no such folder that can be written,
    as in containers that run as a user without a home, or where all users may
    write there, too, or put another folder in its place. A temporary folder
    that users share is no substitute: what lies there is executed. Members of
    its group are trusted, as each user often has a group of their own.
  """
  try:
    # A user that no table of users knows has no home: RuntimeError.
    caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    path = pathlib.Path(caches, 'mtnet_jax', kind)
    path.mkdir(parents=True, exist_ok=True)
    trusted = _is_ours(path) and _stays_in_place(path)
  except (OSError, RuntimeError):
    return None
  return path if trusted and os.access(path, os.W_OK | os.X_OK) else None


def _is_ours(path):
  """Whether no other user put anything there, root excepted."""
  if not hasattr(os, 'getuid'):
    return True
  status, user = path.stat(), os.getuid()
  # In a container, root often works in a folder of the machine's user.
  owned = user == 0 or status.st_uid in (0, user)
  return owned and not status.st_mode & stat.S_IWOTH


def _stays_in_place(path):
  """Whether no user but owners of folders above can put another one there."""
  modes = (parent.stat().st_mode for parent in path.resolve().parents)
  # In a sticky folder, as /tmp is, only owners rename.
  return all(mode & stat.S_ISVTX or not mode & stat.S_IWOTH for mode in modes)


def enable():
  """Turns JAX's persistent cache on, unless its folder was chosen already.

  Without a folder there is no cache: programs are compiled in each process.
  """
  if jax.config.jax_compilation_cache_dir is None:
    compiled = folder('compiled')
    if compiled is not None:
      jax.config.update('jax_compilation_cache_dir', str(compiled))
