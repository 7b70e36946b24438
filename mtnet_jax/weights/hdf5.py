"""Reads tensors from Keras's HDF5 files, which are not trusted.

The HDF5 library hangs on some damaged files and might crash on others, where
Python cannot catch it. `probe` therefore reads a file in a separate process
first. It runs this file as a script, which imports nothing else of the package:

    python -P hdf5.py FILE
"""

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import h5py

_TIMEOUT_S = 60
# The largest known file of weights has 0.3 GB. A small file may claim any size,
# or inflate to it.
MAX_BYTES = 1 << 30


def probe(path: str | os.PathLike[str]) -> None:
  """Reads a file in a separate process.

  Raises:
    ValueError: that process fails or does not finish in time.
  """
  try:
    done = subprocess.run(
      [sys.executable, '-P', __file__, str(path)],
      capture_output=True,
      timeout=_TIMEOUT_S,
      check=False,
    )
  except subprocess.TimeoutExpired as error:
    raise ValueError(
      f'the HDF5 library does not finish in {_TIMEOUT_S} s'
    ) from error
  if done.returncode:
    lines = done.stderr.decode(errors='replace').strip().splitlines()
    reason = lines[-1] if lines else f'the reader exits with {done.returncode}'
    raise ValueError(reason)


def datasets(file: 'h5py.File') -> 'dict[str, h5py.Dataset]':
  """Returns the dataset of every tensor, by name.

  Args:
    file: an open file.

  Raises:
    ValueError: the layout is unknown, the file refers to other files, or it
      claims more bytes than weights have.
  """
  # `model.save` writes the weights one level deeper.
  root = _get(file, 'model_weights') if 'model_weights' in file else file
  if 'layer_names' in root.attrs:
    found = _by_layer_names(root)
  elif 'layers' in root:
    found = _by_vars(_get(root, 'layers'))
  else:
    raise ValueError('neither layer_names nor layers in this HDF5 file')
  for name, dataset in found.items():
    if getattr(dataset, 'shape', None) is None:
      raise ValueError(f'{name} is no tensor')
    if dataset.external or dataset.is_virtual:
      raise ValueError(f'{name} lies in another file')
  if sum(dataset.nbytes for dataset in found.values()) > MAX_BYTES:
    raise ValueError(f'it claims more than {MAX_BYTES >> 30} GiB of weights')
  return found


def _get(group, name):
  """Gets a member through hard links only: other links can leave the file."""
  import h5py

  for part in filter(None, name.split('/')):
    if not isinstance(group.get(part, getlink=True), h5py.HardLink):
      raise ValueError(f'{part} is a link to another place')
    group = group[part]
  return group


def _by_layer_names(root):
  """Names the tensors of Keras 1 and 2: 'LAYER/INDEX'."""

  def text(value):
    return value.decode() if isinstance(value, bytes) else value

  return {
    f'{layer}/{i}': _get(_get(root, layer), text(weight))
    for layer in map(text, root.attrs['layer_names'])
    for i, weight in enumerate(_get(root, layer).attrs['weight_names'])
  }


def _by_vars(layers):
  """Names the tensors of Keras 3 the same way.

  A group is named after the layer's class; an attribute holds the layer's name.
  """
  found = {}
  for key in layers:
    group = _get(layers, key)
    if 'vars' in group:
      tensors = _get(group, 'vars')
      name = tensors.attrs.get('name', key)
      found.update((f'{name}/{i}', _get(tensors, i)) for i in tensors)
  return found


def main(path: str) -> None:
  """Reads every tensor of a file, which fails if it is damaged."""
  import h5py

  with h5py.File(path, 'r') as file:
    for dataset in datasets(file).values():
      dataset[()]


if __name__ == '__main__':
  main(sys.argv[1])
