"""An ONNX program predicts what the model does, without other packages."""

import exported_models
import numpy as np
import pytest

from mtnet_jax import export
from mtnet_jax.inference import onnx as onnx_export

for _name in ('torch', 'onnx', 'onnxscript', 'onnxruntime'):
  pytest.importorskip(_name, reason='needs the extra `onnx`')

pytestmark = pytest.mark.extra

_ATOL = 1e-4
_USE = """
import sys
for i in range(2):
  with np.load(f'in{i}.npz') as arrays:
    outputs = predict(arrays['hu'], arrays['spacing'])
  np.savez(f'out{i}.npz', **outputs)
"""


def _outputs(folder, tmp_path, inputs):
  """Yields the outputs of the README's code, run without other packages."""
  for i, (hu, spacing_mm) in enumerate(inputs):
    np.savez(tmp_path / f'in{i}.npz', hu=hu, spacing=spacing_mm)
  missing = ['mtnet_jax', 'tfds_lidc', 'torch', 'jax', 'flax', 'onnx']
  exported_models.run_readme(folder, tmp_path, missing=missing, then=_USE)
  for i in range(len(inputs)):
    with np.load(tmp_path / f'out{i}.npz') as outputs:
      yield dict(outputs)


def _check(model, folder, tmp_path, batch_sizes):
  """Fails if the export and the model differ in their predictions."""
  inputs = [exported_models.inputs(size) for size in batch_sizes]
  all_outputs = _outputs(folder, tmp_path, inputs)
  for arguments, outputs in zip(inputs, all_outputs, strict=True):
    prediction = model.predict(*arguments)
    assert prediction.probability.std() > 0.01
    exported_models.assert_same(outputs, prediction, atol=_ATOL)


@pytest.mark.long
def test_an_average_of_networks_with_every_field(tmp_path):
  model = exported_models.averaged('fields')
  folder = tmp_path / 'out'
  folder.mkdir()
  onnx_export.write(model, folder, name=folder)
  assert {path.name for path in folder.iterdir()} == {'README.md', 'mtnet.onnx'}
  text = (folder / 'README.md').read_text()
  assert 'SIMULATED' in text and '(16, N)' in text
  # The batch size is free: the export used two patches.
  _check(model, folder, tmp_path, (3, 1))


def test_one_training(tmp_path):
  model = exported_models.make('plain', temperature=0.6)
  folder = tmp_path / 'out'
  folder.mkdir()
  onnx_export.write(model, folder, name=folder)
  _check(model, folder, tmp_path, (2, 5))


@pytest.mark.slow
def test_the_model_that_comes_with_the_package(tmp_path):
  import mtnet_jax

  export.write('lidc-small', tmp_path / 'out', 'onnx')
  text = (tmp_path / 'out' / 'README.md').read_text()
  assert 'SIMULATED' not in text and '# lidc-small' in text
  model = mtnet_jax.load('lidc-small')
  _check(model, tmp_path / 'out', tmp_path, (2, 1))


def test_large_weights_are_in_a_file_of_their_own(tmp_path, monkeypatch):
  monkeypatch.setattr(onnx_export, '_MAX_BYTES', 1000)
  model = exported_models.make('plain')
  folder = tmp_path / 'out'
  folder.mkdir()
  onnx_export.write(model, folder, name=folder)
  found = {path.name for path in folder.iterdir()}
  assert found == {'README.md', 'mtnet.onnx', 'mtnet.onnx.data'}
  _check(model, folder, tmp_path, (2, 1))


def test_a_batch_norm_without_a_convolution_is_refused():
  import torch

  from mtnet_jax.inference.torch import folding

  net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.BatchNorm2d(3)).eval()
  with pytest.raises(ValueError, match='does not follow a convolution'):
    folding.fold_batch_norms(net, torch.ones(1, 3, 4, 4))
