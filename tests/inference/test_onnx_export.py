"""An ONNX program says what the model says, where nothing else is."""

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
  with np.load(f'in{i}.npz') as given:
    answer = predict(given['hu'], given['spacing'])
  np.savez(f'out{i}.npz', **answer)
"""


def _answers(folder, tmp_path, inputs):
  """What the README's code answers where no package of ours can be imported."""
  for i, (hu, spacing_mm) in enumerate(inputs):
    np.savez(tmp_path / f'in{i}.npz', hu=hu, spacing=spacing_mm)
  missing = ['mtnet_jax', 'tfds_lidc', 'torch', 'jax', 'flax', 'onnx']
  exported_models.run_readme(folder, tmp_path, missing=missing, then=_USE)
  for i in range(len(inputs)):
    with np.load(tmp_path / f'out{i}.npz') as answer:
      yield dict(answer)


def _check(model, folder, tmp_path, counts):
  inputs = [exported_models.inputs(count) for count in counts]
  answers = _answers(folder, tmp_path, inputs)
  for given, answer in zip(inputs, answers, strict=True):
    prediction = model.predict(*given)
    assert prediction.probability.std() > 0.01
    exported_models.assert_same(answer, prediction, atol=_ATOL)


def test_an_average_of_networks_with_every_field(tmp_path):
  model = exported_models.averaged('fields')
  folder = tmp_path / 'out'
  folder.mkdir()
  onnx_export.write(model, folder, name=folder)
  assert {path.name for path in folder.iterdir()} == {'README.md', 'mtnet.onnx'}
  text = (folder / 'README.md').read_text()
  assert 'SIMULATED' in text and '(16, N)' in text
  # As many patches as there are, not as many as it was written with.
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


def test_large_weights_lie_beside_it(tmp_path, monkeypatch):
  monkeypatch.setattr(onnx_export, '_MAX_BYTES', 1000)
  model = exported_models.make('plain')
  folder = tmp_path / 'out'
  folder.mkdir()
  onnx_export.write(model, folder, name=folder)
  found = {path.name for path in folder.iterdir()}
  assert found == {'README.md', 'mtnet.onnx', 'mtnet.onnx.data'}
  _check(model, folder, tmp_path, (2, 1))


def test_a_norm_without_a_convolution_is_not_lost():
  import torch

  from mtnet_jax.inference.torch import folding

  net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.BatchNorm2d(3)).eval()
  with pytest.raises(ValueError, match='not behind a convolution'):
    folding.fold_batch_norms(net, torch.ones(1, 3, 4, 4))
