"""Keeps compiled programs on disk, so that the next process starts faster.

JAX has such a cache, which is off by default. If the user has chosen its
folder, by JAX_COMPILATION_CACHE_DIR or `jax.config`, this folder is used.
JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off.
"""

import os
import pathlib
import stat

import jax


def folder(kind: str) -> pathlib.Path | None:
  """Returns a cache folder below XDG_CACHE_HOME or ~/.cache.

  The folder must be safe, because the files in it are executed: a temporary
  folder that users share is no substitute for it. Members of the folder's group
  are trusted, because users often have a group of their own.

  Args:
    kind: name of the folder: 'compiled' for JAX's programs, 'native' for the
      C++ loops.

  Returns:
    The folder. None where the user has no folder that can be written, such as
    in a container whose user has no home, or where all users can write to it or
    replace it.
  """
  try:
    # `home` raises a RuntimeError for users who are not in the user database.
    caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    path = pathlib.Path(caches, 'mtnet_jax', kind)
    path.mkdir(parents=True, exist_ok=True)
    trusted = _is_ours(path) and _stays_in_place(path)
  except (OSError, RuntimeError):
    return None
  return path if trusted and os.access(path, os.W_OK | os.X_OK) else None


def _is_ours(path):
  """Returns whether only this user, root and the group can write there."""
  if not hasattr(os, 'getuid'):
    return True
  status, user = path.stat(), os.getuid()
  # In a container, root often works in a folder that the host's user owns.
  owned = user == 0 or status.st_uid in (0, user)
  return owned and not status.st_mode & stat.S_IWOTH


def _stays_in_place(path):
  """Returns whether only the owners of its parent folders can replace it."""
  modes = (parent.stat().st_mode for parent in path.resolve().parents)
  # In a sticky folder such as /tmp, only the owner of an entry can rename it.
  return all(mode & stat.S_ISVTX or not mode & stat.S_IWOTH for mode in modes)


def enable() -> None:
  """Turns JAX's persistent cache on, unless its folder was chosen already.

  Without a safe folder there is no cache: each process compiles its programs.
  """
  # JAX adds its options to `Config` at run time.
  chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
  if chosen is None:
    compiled = folder('compiled')
    if compiled is not None:
      jax.config.update('jax_compilation_cache_dir', str(compiled))
