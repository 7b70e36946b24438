"""Variables as safetensors, under names like coarse/params/..."""

import hashlib
import json
import math
import re

import jax
import numpy as np
import safetensors.numpy

from mtnet_jax.system import errors

# That of the shipped model, of two members, takes a hundredth of it.
_MAX_HEADER = 20 << 20
_MAX_SIDES, _MAX_SIDE = 8, 1 << 31
# The longest name of the project has 69 letters in 9 parts.
_NAME = re.compile('[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,19}')
_MAX_NAME = 300
_TYPES = {'F16': np.float16, 'F32': np.float32}


def header(path):
  """Shapes and types of a file, of which no more than its header is read.

  Returns:
    Nested dicts of `jax.ShapeDtypeStruct`.

  Raises:
    errors.InputError: it is no file of float16 and float32 arrays that follow
      each other, or its size is not what its header says.
  """
  try:
    size = path.stat().st_size
    with path.open('rb') as file:
      length = int.from_bytes(file.read(8), 'little')
      if not 0 < length <= min(_MAX_HEADER, size - 8):
        raise ValueError(f'a header of {length} bytes')
      listed = json.loads(file.read(length))
    listed.pop('__metadata__', None)
    found, end = {}, 0
    for name, entry in sorted(
      listed.items(), key=lambda item: item[1]['data_offsets']
    ):
      _check_name(name)
      dtype, shape = _TYPES[entry['dtype']], _shape(entry)
      start = end
      end = start + math.prod(shape) * np.dtype(dtype).itemsize
      if entry['data_offsets'] != [start, end]:
        raise ValueError('arrays that do not follow each other')
      found[name] = jax.ShapeDtypeStruct(shape, dtype)
    if size != 8 + length + end:
      raise ValueError(f'{size} bytes, not the {8 + length + end} it lists')
    _check_groups(found)
    return nested(found)
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise errors.InputError(
      f'{path} is damaged, or holds no weights ({type(error).__name__},'
      f' {str(error)[:200]}): get the bundle again.'
    ) from error


def _check_name(name):
  if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
    raise ValueError(f'a name of {len(name)} letters that no array has')


def _shape(entry):
  """The shape of an array, of which a product can be made."""
  shape = entry['shape']
  if (
    not isinstance(shape, list)
    or len(shape) > _MAX_SIDES
    or any(type(side) is not int or not 0 <= side < _MAX_SIDE for side in shape)
  ):
    raise ValueError('a shape that is none')
  return tuple(shape)


def _check_groups(found):
  """No array may have the name of a group of arrays."""
  for name in found:
    for i, letter in enumerate(name):
      if letter == '/' and name[:i] in found:
        raise ValueError('an array with the name of a group')


def check_finite(tree, where, *, way_out='Get the model again.'):
  """Raises `errors.InputError` where an array holds NaN or infinity."""
  for keys, leaf in jax.tree.leaves_with_path(tree):
    if not np.isfinite(leaf).all():
      name = jax.tree_util.keystr(keys, simple=True, separator='/')
      raise errors.InputError(
        f'{where}: {name} holds values that are not finite. {way_out}'
      )


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


def write(path, variables, *, metadata=None):
  """Writes nested dicts of arrays.

  Args:
    path: `pathlib.Path` of the file.
    variables: nested dicts.
    metadata: texts that the header holds, by name.

  Raises:
    errors.InputError: they cannot be written.
  """
  path.touch()
  mode = path.stat().st_mode
  try:
    safetensors.numpy.save_file(dict(flat(variables)), path, metadata)
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
