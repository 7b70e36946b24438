"""Reads files of weights: names and shapes first, then tensor by tensor.

Formats: `.safetensors`; Keras's `.h5` and `.weights.h5`; PyTorch's `.pth`,
`.pt` and `.bin`, through `torch.load(weights_only=True)`, so that no file can
run code; and TensorFlow checkpoints, by their prefix or their `.index`.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import io
import math
import os
import pathlib
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from mtnet_jax.system import errors
from mtnet_jax.weights import hdf5

if TYPE_CHECKING:
  import torch

_Path = str | os.PathLike[str]

_TORCH_SUFFIXES = ('.pth', '.pt', '.bin')
_KNOWN = '.safetensors, .h5, .pth, .pt, .bin, or a TensorFlow checkpoint'
# Room for what files hold beside tensors: headers, names, padding.
_OVERHEAD_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """An open file of weights.

  Attributes:
    shapes: shape of every tensor, by name.
    read: name -> tensor, as a NumPy array that may be mapped from the file.
    metadata: strings of the file's header, by name.
  """

  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]
  metadata: dict[str, str] = dataclasses.field(default_factory=dict)


def exists(path: _Path) -> bool:
  """Whether there is such a file or TensorFlow checkpoint."""
  return all(part.is_file() for part in _parts(path))


def sha256(path: _Path) -> str:
  """Computes the SHA-256 of a file or checkpoint, in hexadecimal digits.

  Raises:
    errors.InputError: it cannot be read, or is too large for weights.
  """
  digest = hashlib.sha256()
  try:
    _check_length(path)
    for part in _parts(path):
      with open(part, 'rb') as file:
        while block := file.read(1 << 20):
          digest.update(block)
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read: {error.strerror}.'
    ) from error
  return digest.hexdigest()


@contextlib.contextmanager
def open_weights(path: _Path) -> Iterator[WeightFile]:
  """Opens a file of weights by its extension.

  Yields:
    The open file, which must not be used after the `with` block.

  Raises:
    errors.InputError: the file is missing, damaged or too large for weights,
      its format is unknown, or a package to read it is missing.
  """
  if not exists(path):
    raise errors.InputError(
      f'{path} is missing or not a file: check the path of the weights.'
    )
  with contextlib.ExitStack() as stack:
    try:
      opener = _opener(path)
      _check_length(path)
      opened = opener(path, stack)
    except ImportError as error:
      extra = 'tf' if error.name == 'tensorflow' else 'interop'
      raise errors.InputError(
        f'{path} needs {error.name}, which is not installed: `pip install'
        f' mtnet_jax[{extra}]`, or use the .safetensors or .h5 file of the same'
        ' weights.'
      ) from error
    except errors.InputError:
      raise
    except _damage() as error:
      raise _damaged(path, error) from error

    def read(name: str) -> np.ndarray:
      try:
        return opened.read(name)
      except _damage() as error:
        raise _damaged(f'{path}: {name}', error) from error

    yield dataclasses.replace(opened, read=read)


def _check_length(path):
  """Refuses files that are too large for weights, before they are read.

  A sparse file may have any length without using disk space.

  Raises:
    errors.InputError: the files are too large.
    OSError: a file does not exist.
  """
  length = sum(part.stat().st_size for part in _parts(path))
  if length > hdf5.MAX_BYTES + _OVERHEAD_BYTES:
    raise errors.InputError(
      f'{path} has {length / (1 << 30):.1f} GiB, but weights of these networks'
      f' have at most {hdf5.MAX_BYTES >> 30} GiB: give a file of such weights.'
    )


def _opener(path):
  suffix = pathlib.Path(path).suffix
  if suffix == '.safetensors':
    return _open_safetensors
  if suffix == '.h5':
    return _open_hdf5
  if suffix in _TORCH_SUFFIXES:
    return _open_torch
  if len(_parts(path)) > 1:
    return _open_tensorflow
  raise errors.InputError(
    f'{path}: the extension {suffix!r} is of no known format: give a file of'
    f' one of these: {_KNOWN}.'
  )


def _parts(path: _Path) -> list[pathlib.Path]:
  """Returns the files that a path stands for: several for TensorFlow's."""
  path = pathlib.Path(path)
  prefix = path.with_suffix('') if path.suffix == '.index' else path
  index = prefix.with_name(f'{prefix.name}.index')
  if not index.is_file():
    return [path]
  data = sorted(prefix.parent.glob(f'{prefix.name}.data-?????-of-?????'))
  # If there are no data files, a path that does not exist counts as missing.
  return [index, *(data or [prefix.with_name(f'{prefix.name}.data')])]


def _damage() -> tuple[type[Exception], ...]:
  """Returns the exceptions that readers raise about damaged files."""
  import pickle
  import struct
  import zipfile

  import safetensors

  return (
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
  )


def _damaged(what, error):
  reason = str(error).strip().splitlines() or [type(error).__name__]
  return errors.InputError(
    f'{what} is damaged, or its format is not that of its extension'
    f' ({reason[0].rstrip(".")[:200]}): download it again.'
  )


def _open_safetensors(path, stack):
  import safetensors

  file = stack.enter_context(safetensors.safe_open(path, framework='numpy'))
  names = file.keys()
  shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
  return WeightFile(shapes, file.get_tensor, file.metadata() or {})


def _open_hdf5(path, stack):
  import h5py

  hdf5.probe(path)
  file = stack.enter_context(h5py.File(path, 'r'))
  datasets = hdf5.datasets(file)
  return WeightFile(
    {name: dataset.shape for name, dataset in datasets.items()},
    lambda name: datasets[name][()],
  )


def _open_torch(path, stack):
  import pickle

  import torch

  def load(source: Any, mmap: bool) -> Any:
    return torch.load(source, map_location='cpu', weights_only=True, mmap=mmap)

  try:
    try:
      _check_archive(path)
      state = load(path, mmap=True)
    except RuntimeError:
      # Files older than PyTorch 1.6 cannot be mapped. They are read from
      # memory, because from disk PyTorch first allocates what a file claims,
      # up to 4 GiB.
      state = load(io.BytesIO(pathlib.Path(path).read_bytes()), mmap=False)
  except pickle.UnpicklingError as error:
    raise errors.InputError(
      f'{path} holds more than tensors and could run code: it is not loaded.'
      ' Save its plain state dict (`torch.save(net.state_dict(), FILE)`).'
    ) from error
  if not isinstance(state, dict) or not all(
    isinstance(name, str) and isinstance(value, torch.Tensor)
    for name, value in state.items()
  ):
    found = list(state)[:5] if isinstance(state, dict) else type(state)
    raise errors.InputError(
      f'{path} is not a plain state dict of tensors, but holds {found}: save'
      ' only `net.state_dict()`.'
    )
  stack.callback(state.clear)
  # With strides of 0, four bytes can claim any size.
  _check_size(value.nbytes for value in state.values())
  return WeightFile(
    {name: tuple(value.shape) for name, value in state.items()},
    lambda name: _array_of(state[name]),
  )


def _array_of(tensor: 'torch.Tensor') -> np.ndarray:
  # NumPy lacks some floating-point types of PyTorch, such as bfloat16.
  return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _check_size(sizes: Iterable[int]) -> None:
  """Raises `ValueError` if tensors of these bytes are too large for weights."""
  if sum(sizes) > hdf5.MAX_BYTES:
    raise ValueError(
      f'it claims more than {hdf5.MAX_BYTES >> 30} GiB of weights'
    )


def _check_archive(path):
  """Raises `ValueError` if an archive is compressed: PyTorch's never is."""
  import zipfile

  if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
        raise ValueError('its archive is compressed')


def _open_tensorflow(path, stack):
  del stack  # The reader needs no closing.
  import tensorflow as tf

  def read(function, argument):
    try:
      return function(argument)
    except tf.errors.OpError as error:
      raise ValueError(str(error)) from error

  prefix = str(path).removesuffix('.index')
  reader = read(tf.train.load_checkpoint, prefix)
  shapes = reader.get_variable_to_shape_map()
  dtypes = reader.get_variable_to_dtype_map()
  _check_size(
    math.prod(shape) * dtypes[name].size for name, shape in shapes.items()
  )
  return WeightFile(
    {name: tuple(shape) for name, shape in shapes.items()},
    lambda name: read(reader.get_tensor, name),
  )
