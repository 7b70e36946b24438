"""Tensors of Keras's HDF5 files, which may come from anyone.

The HDF5 library hangs on some damaged files, and could crash on others, out of
Python's reach; `probe` lets a process of its own read a file first. Run as a
script, so that nothing else is imported:

    python -P hdf5.py FILE
"""

import subprocess
import sys

_SECONDS = 60
# The largest known file of weights has 0.3 GB; compressed, a few bytes could
# become any number.
MAX_BYTES = 1 << 30


def probe(path):
  """Reads a file in another process.

  Raises:
    ValueError: that process does not end well.
  """
  try:
    done = subprocess.run(
      [sys.executable, '-P', __file__, str(path)],
      capture_output=True,
      timeout=_SECONDS,
      check=False,
    )
  except subprocess.TimeoutExpired as error:
    raise ValueError(
      f'the HDF5 library does not finish in {_SECONDS} s'
    ) from error
  if done.returncode:
    lines = done.stderr.decode(errors='replace').strip().splitlines()
    reason = lines[-1] if lines else f'the reader ends with {done.returncode}'
    raise ValueError(reason)


def datasets(file):
  """Name -> dataset of every tensor.

  Args:
    file: an open `h5py.File`.

  Raises:
    ValueError: it is of no known layout, refers to other files, or claims to
      hold more than weights are.
  """
  # Written by `model.save`, the weights lie one level deeper.
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
  """A member, followed through hard links only: others can leave the file."""
  import h5py

  for part in filter(None, name.split('/')):
    if not isinstance(group.get(part, getlink=True), h5py.HardLink):
      raise ValueError(f'{part} is a link to another place')
    group = group[part]
  return group


def _by_layer_names(root):
  """Keras 1 and 2: every tensor as 'layer/place in the layer'."""

  def text(value):
    return value.decode() if isinstance(value, bytes) else value

  return {
    f'{layer}/{i}': _get(_get(root, layer), text(weight))
    for layer in map(text, root.attrs['layer_names'])
    for i, weight in enumerate(_get(root, layer).attrs['weight_names'])
  }


def _by_vars(layers):
  """Keras 3: the same names; groups are called by class, layers beside it."""
  found = {}
  for key in layers:
    group = _get(layers, key)
    if 'vars' in group:
      tensors = _get(group, 'vars')
      name = tensors.attrs.get('name', key)
      found.update((f'{name}/{i}', _get(tensors, i)) for i in tensors)
  return found


def main(path):
  import h5py

  with h5py.File(path, 'r') as file:
    for dataset in datasets(file).values():
      dataset[()]


if __name__ == '__main__':
  main(sys.argv[1])
