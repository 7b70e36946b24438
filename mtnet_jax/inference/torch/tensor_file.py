"""Reads and writes tensors and settings in a safetensors file, using PyTorch.

The format: the length of the header in eight bytes, little-endian; the header,
JSON of name -> dtype, shape and offsets; the bytes of the tensors. The settings
are a JSON string in the header's `__metadata__`.
"""

from collections.abc import Mapping
import json
import math
import os
import pathlib
import struct
from typing import Any

import torch

_SETTINGS = 'mtnet'
_DTYPES = {'F32': torch.float32, 'F16': torch.float16, 'F64': torch.float64}
_MAX_HEADER = 20 << 20


def read_tensors(
  path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
  """Reads the settings and tensors of a file.

  Args:
    path: path of the file, such as `weights.safetensors`.

  Returns:
    The settings, and float32 tensors by name.

  Raises:
    ValueError: the file is damaged, or is not an exported MT-Net.
  """
  path = pathlib.Path(path)
  try:
    with path.open('rb') as file:
      (length,) = struct.unpack('<Q', file.read(8))
      if length > min(_MAX_HEADER, os.fstat(file.fileno()).st_size):
        raise ValueError(f'a header of {length} bytes')
      header = json.loads(file.read(length))
      content = bytearray(file.read())
    settings = json.loads(header.pop('__metadata__')[_SETTINGS])
    tensors = {
      name: _tensor(content, **entry) for name, entry in header.items()
    }
    end = max(entry['data_offsets'][1] for entry in header.values())
    if end != len(content):
      raise ValueError(f'{len(content)} bytes of tensors, not {end}')
  except (
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
  ) as error:
    raise ValueError(
      f'{path} is not an exported MT-Net, or it is damaged ({error}): export'
      ' the model again, and save trained models with `mtnet.save`.'
    ) from error
  return settings, tensors


def _tensor(content, *, dtype, shape, data_offsets):
  """Returns a tensor of the file's content, from its header entry."""
  start, end = data_offsets
  count = math.prod(shape)
  if end - start != count * _DTYPES[dtype].itemsize or end > len(content):
    raise ValueError('the size of a tensor does not match its offsets')
  flat = torch.frombuffer(
    content, dtype=_DTYPES[dtype], count=count, offset=start
  )
  return flat.reshape(shape).float()


def write_tensors(
  path: str | os.PathLike[str],
  settings: Mapping[str, Any],
  tensors: Mapping[str, torch.Tensor],
) -> None:
  """Writes a file that `read_tensors` reads.

  Args:
    path: path of the file, which is replaced once the new one is complete.
    settings: what JSON can hold.
    tensors: tensors by name, written as float32.
  """
  header: dict[str, Any] = {
    '__metadata__': {'format': 'pt', _SETTINGS: json.dumps(settings)},
  }
  tensors = {
    name: value.detach().cpu().float().contiguous()
    for name, value in tensors.items()
  }
  end = 0
  for name, value in tensors.items():
    start, end = end, end + value.nbytes
    header[name] = {
      'dtype': 'F32',
      'shape': list(value.shape),
      'data_offsets': [start, end],
    }
  text = json.dumps(header).encode()
  # Padding aligns the tensors to eight bytes.
  text += b' ' * (-len(text) % 8)
  path = pathlib.Path(path)
  unfinished = path.with_name(f'{path.name}.unfinished')
  with unfinished.open('wb') as file:
    file.write(struct.pack('<Q', len(text)) + text)
    for value in tensors.values():
      file.write(value.reshape(-1).view(torch.uint8).numpy().tobytes())
  unfinished.replace(path)
