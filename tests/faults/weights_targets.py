"""Targets of the fuzzer: files of weights."""

import io
import os
import pickle
import zipfile

from faults import mutations
from faults import target
import numpy as np


def arrays():
  rng = np.random.default_rng(0)
  return {
    'conv1.weight': rng.random((4, 3, 3, 3), np.float32),
    'bn1.weight': rng.random(4, np.float32),
    'bn1.num_batches_tracked': np.array(7),
  }


def safetensors() -> list[target.Case]:
  from safetensors import numpy as safetensors_numpy

  return [
    {'weights.safetensors': safetensors_numpy.save(arrays())},
    {'weights.safetensors': exported()},
  ]


def exported() -> bytes:
  """Returns a file with the names and settings of an export to PyTorch."""
  import json

  from safetensors import numpy as safetensors_numpy

  from mtnet_jax.weights import exported as exported_lib

  value = np.zeros((4, 3, 1, 1), np.float32)
  names = (
    'members.0.coarse_net.aspp.branch1.0.weight',
    'members.0.class_net.block1.rep.0.conv1.weight',
  )
  import exported_models

  from mtnet_jax.inference import pytorch

  _, settings = pytorch.arrays_and_settings(exported_models.make('fields'))
  return safetensors_numpy.save(
    dict.fromkeys(names, value),
    {exported_lib.SETTINGS: json.dumps(settings)},
  )


def damage_safetensors(rng, data, other):
  """Damages mostly the header, and mostly corrects its length."""
  if rng.random() < 0.4:
    return mutations.damage(rng, data, other)
  size = int.from_bytes(data[:8], 'little')
  header = mutations.damage_json(rng, data[8 : 8 + size])
  if rng.random() < 0.2:
    size = rng.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1))
  else:
    size = len(header)
  return size.to_bytes(8, 'little') + header + data[8 + len(header) :]


def pth() -> list[target.Case]:
  import torch

  state = {name: torch.tensor(value) for name, value in arrays().items()}
  cases = []
  for zipped in (True, False):
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=zipped)
    cases.append({'weights.pth': stream.getvalue()})
  return cases


class Code:
  """Runs a command when it is unpickled."""

  def __reduce__(self):
    return os.system, ('touch /tmp/fuzz-has-run-code',)


def damage_pth(rng, data, other):
  """Damages mostly the pickle in the archive."""
  if rng.random() < 0.3 or not zipfile.is_zipfile(io.BytesIO(data)):
    return mutations.damage(rng, data, other)
  out = io.BytesIO()
  method = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
  with (
    zipfile.ZipFile(io.BytesIO(data)) as old,
    zipfile.ZipFile(out, 'w', method) as new,
  ):
    for item in old.infolist():
      content = old.read(item)
      if item.filename.endswith('data.pkl'):
        content = (
          pickle.dumps({'conv1.weight': Code()})
          if rng.random() < 0.05
          else mutations.damage(rng, content, content)
        )
      new.writestr(item.filename, content)
  return out.getvalue()


def hdf5() -> list[target.Case]:
  import h5py
  import weights_made_up

  arrays = {
    'block1_conv1/0': np.ones((3, 3, 3, 4), np.float32),
    'block1_conv1_bn/0': np.ones(4, np.float32),
    'skip1_conv/0': np.ones((1, 1, 4, 8), np.float32),
  }
  cases = [
    target.written(
      lambda f: weights_made_up.write_keras_2(arrays, f / 'weights.h5')
    ),
    target.written(
      lambda f: weights_made_up.write_keras_3(arrays, f / 'weights.h5')
    ),
  ]

  def compressed(folder):
    with h5py.File(folder / 'weights.h5', 'w') as file:
      group = file.create_group('layers/layer/vars')
      group.create_dataset(
        '0', data=np.ones((64, 64)), chunks=(8, 8), compression='gzip'
      )

  return [*cases, target.written(compressed)]


def tensorflow() -> list[target.Case]:
  import weights_made_up

  return [
    target.written(
      lambda f: weights_made_up.write_tensorflow(arrays(), f / 'model.ckpt')
    )
  ]


def damage_tensorflow(rng, case, other):
  del other
  name = rng.choice(sorted(case))
  return {**case, name: mutations.damage(rng, case[name], case[name])}


def of_weights(damage):
  """Returns a target's `damage` function for cases of one file."""

  def damaged(rng, case, other):
    ((name, data),) = case.items()
    return {name: damage(rng, data, other[name])}

  return damaged


def read_weights(folder):
  from mtnet_jax.weights import exported as exported_lib
  from mtnet_jax.weights import files
  from mtnet_jax.weights import sources

  # A TensorFlow checkpoint has two files; users name the index.
  path = max(folder.iterdir(), key=lambda path: path.suffix == '.index')
  with files.open_weights(path) as file:
    for task in sources.EXPORTED_FIELDS:
      source, _ = sources.recognise(tuple(file.shapes), task)
      if source and source.fields is None:
        exported_lib.fields(path, file.metadata, task)
        exported_lib.sizes(path, file.metadata, task)
    for name, shape in file.shapes.items():
      value = file.read(name)
      assert value.shape == tuple(shape)
      np.array(value, np.float32)
