"""Variables as safetensors, under names like coarse/params/..."""

import hashlib

import jax
import numpy as np
import safetensors.numpy

from mtnet_jax.system import errors


def read(path):
  """Reads nested dicts of arrays.

  Raises:
    errors.InputError: the file is damaged.
  """
  try:
    arrays = safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise errors.InputError(
      f'{path} is damaged ({str(error)[:200]}): get the bundle again.'
    ) from error
  return nested(arrays)


def write(path, variables):
  """Writes nested dicts of arrays.

  Raises:
    errors.InputError: they cannot be written.
  """
  path.touch()
  mode = path.stat().st_mode
  try:
    safetensors.numpy.save_file(dict(flat(variables)), path)
    # safetensors makes it readable by this user only.
    path.chmod(mode)
  except safetensors.SafetensorError as error:
    raise errors.InputError(
      f'{path.parent} cannot be written ({error}): choose another --out.'
    ) from error


def flat(tree, path=()):
  """Yields ('coarse/params/...', array) of every leaf of nested dicts."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from flat(value, (*path, key))
    else:
      yield '/'.join((*path, key)), value


def nested(arrays):
  """Nested dicts of {'coarse/params/...': array}: the inverse of `flat`."""
  tree = {}
  for name, array in arrays.items():
    *groups, leaf = name.split('/')
    group = tree
    for key in groups:
      group = group.setdefault(key, {})
    group[leaf] = array
  return tree


def digest(tree):
  """SHA-256 of the names, types, shapes and bytes of nested dicts of arrays."""
  found = hashlib.sha256()
  for keys, leaf in jax.tree.leaves_with_path(tree):
    path = jax.tree_util.keystr(keys, simple=True, separator='/')
    leaf = np.asarray(leaf)
    found.update(f'/{path} {leaf.dtype} {leaf.shape}'.encode())
    found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
  return found.hexdigest()
