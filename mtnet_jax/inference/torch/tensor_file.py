"""Tensors and settings in one safetensors file, with nothing but PyTorch.

The format: eight bytes with the length of a header, little-endian; the header,
JSON of name -> type, shape and place; the tensors' bytes. The settings are JSON
in the header's `__metadata__`, whose values are texts.
"""

import json
import math
import os
import pathlib
import struct

import torch

_SETTINGS = 'mtnet'
_DTYPES = {'F32': torch.float32, 'F16': torch.float16, 'F64': torch.float64}
_MAX_HEADER = 20 << 20


def read_tensors(path):
  """Reads a file.

  Args:
    path: of `weights.safetensors`.

  Returns:
    The settings, a dict, and the float32 tensors by name.

  Raises:
    ValueError: it is no such file, or it is damaged.
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
      f'{path} is no MT-Net, or it is damaged ({error}): export it again, and'
      ' save what you train by `save`.'
    ) from error
  return settings, tensors


def _tensor(content, *, dtype, shape, data_offsets):
  start, end = data_offsets
  count = math.prod(shape)
  if end - start != count * _DTYPES[dtype].itemsize or end > len(content):
    raise ValueError('a tensor whose size does not match its offsets')
  flat = torch.frombuffer(
    content, dtype=_DTYPES[dtype], count=count, offset=start
  )
  return flat.reshape(shape).float()


def write_tensors(path, settings, tensors):
  """Writes a file that `read_tensors` reads; arguments as it returns them."""
  header = {
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
  # Filled up so that the tensors begin where numbers of eight bytes may lie.
  text += b' ' * (-len(text) % 8)
  path = pathlib.Path(path)
  unfinished = path.with_name(f'{path.name}.unfinished')
  with unfinished.open('wb') as file:
    file.write(struct.pack('<Q', len(text)) + text)
    for value in tensors.values():
      file.write(value.reshape(-1).view(torch.uint8).numpy().tobytes())
  unfinished.replace(path)
