"""Reads and writes variables as safetensors, named like coarse/params/..."""

from collections.abc import Iterator
from collections.abc import Mapping
import hashlib
import json
import math
import os
import pathlib
import re
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from mtnet_jax.system import errors

# The header of the shipped model, with two members, takes a hundredth of this.
_MAX_HEADER_BYTES = 20 << 20
_MAX_SIDES, _MAX_SIDE = 8, 1 << 31
# The longest name that the networks need has 69 letters in 9 parts.
_NAME = re.compile('[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,19}')
_MAX_NAME = 300
_TYPES = {'F16': np.float16, 'F32': np.float32}


def header(path: pathlib.Path) -> dict[str, Any]:
  """Reads shapes and types of the arrays in a file, from its header alone.

  Returns:
    Nested dicts of `jax.ShapeDtypeStruct`.

  Raises:
    errors.InputError: the file is not a safetensors file of contiguous float16
      and float32 arrays, or its size is not the one in its header.
  """
  try:
    size = path.stat().st_size
    with path.open('rb') as file:
      length = int.from_bytes(file.read(8), 'little')
      if not 0 < length <= min(_MAX_HEADER_BYTES, size - 8):
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
    raise ValueError(f'an invalid name of {len(name)} letters')


def _shape(entry):
  """Returns the shape of an array; its sides are bounded integers."""
  shape = entry['shape']
  if (
    not isinstance(shape, list)
    or len(shape) > _MAX_SIDES
    or any(type(side) is not int or not 0 <= side < _MAX_SIDE for side in shape)
  ):
    raise ValueError('an invalid shape')
  return tuple(shape)


def _check_groups(found):
  """Raises `ValueError` if an array has the name of a group of arrays."""
  for name in found:
    for i, letter in enumerate(name):
      if letter == '/' and name[:i] in found:
        raise ValueError('an array with the name of a group')


def check_finite(
  tree: Any,
  where: str | os.PathLike[str],
  *,
  way_out: str = 'Get the model again.',
) -> None:
  """Raises `errors.InputError` if an array holds NaN or infinity.

  Args:
    tree: pytree of arrays.
    where: what holds the arrays; begins the message.
    way_out: what the user can do; ends the message.
  """
  for keys, leaf in jax.tree.leaves_with_path(tree):
    if not np.isfinite(leaf).all():
      name = jax.tree_util.keystr(keys, simple=True, separator='/')
      raise errors.InputError(
        f'{where}: {name} holds values that are not finite. {way_out}'
      )


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Reads nested dicts of NumPy arrays.

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


def write(
  path: pathlib.Path,
  variables: Mapping[str, Any],
  *,
  metadata: dict[str, str] | None = None,
) -> None:
  """Writes nested dicts of NumPy arrays.

  Args:
    path: the file.
    variables: nested dicts of arrays.
    metadata: name -> text to store in the file's header.

  Raises:
    errors.InputError: the file cannot be written.
  """
  path.touch()
  mode = path.stat().st_mode
  try:
    safetensors.numpy.save_file(dict(flat(variables)), path, metadata)
    # safetensors makes the file readable by this user only.
    path.chmod(mode)
  except safetensors.SafetensorError as error:
    raise errors.InputError(
      f'{path.parent} cannot be written ({error}): choose another --out.'
    ) from error


def flat(
  tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
  """Yields ('coarse/params/...', array) for every leaf of nested dicts."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from flat(value, (*path, key))
    else:
      yield '/'.join((*path, key)), value


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {'coarse/params/...': array} as nested dicts: inverse of `flat`."""
  tree: dict[str, Any] = {}
  for name, array in arrays.items():
    *groups, leaf = name.split('/')
    group = tree
    for key in groups:
      group = group.setdefault(key, {})
    group[leaf] = array
  return tree


def digest(tree: Any) -> str:
  """Returns the SHA-256 of the names, types, shapes and bytes of arrays.

  Args:
    tree: nested dicts of arrays.
  """
  found = hashlib.sha256()
  for keys, leaf in jax.tree.leaves_with_path(tree):
    path = jax.tree_util.keystr(keys, simple=True, separator='/')
    leaf = np.asarray(leaf)
    found.update(f'/{path} {leaf.dtype} {leaf.shape}'.encode())
    found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
  return found.hexdigest()
