"""A model exported to PyTorch predicts what it does in JAX."""

import functools
import re
import subprocess
import sys

import exported_models
import fast_compile
import jax
import jax.numpy as jnp
import made_run
import numpy as np
import oracles
import pytest

from mtnet_jax.inference import pytorch
from mtnet_jax.models import mtnet as mtnet_lib
from mtnet_jax.models import nets

torch = pytest.importorskip('torch', reason='needs the extra `interop`')

from mtnet_jax.inference.torch import mtnet  # noqa: E402

pytestmark = pytest.mark.extra

_ATOL = 1e-5


def _in_torch(model):
  arrays, settings = pytorch.arrays_and_settings(model)
  net = mtnet.MTNet(settings)
  # Strict loading: the file has exactly the tensors of the network.
  net.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
  return net.eval()


@torch.inference_mode()
def _predict(net, hu, spacing_mm):
  outputs = net(torch.tensor(hu), torch.tensor(spacing_mm))
  assert tuple(outputs) == net.output_names
  return {name: value.numpy() for name, value in outputs.items()}


@pytest.mark.parametrize('variant', exported_models.VARIANTS)
def test_every_field_and_strategy(variant):
  model = exported_models.make(variant, temperature=1.7)
  inputs = exported_models.inputs()
  outputs = _predict(_in_torch(model), *inputs)
  prediction = model.predict(*inputs)
  # A constant prediction would hide differences.
  assert prediction.probability.std() > 0.01
  exported_models.assert_same(outputs, prediction, atol=_ATOL)


@pytest.fixture
def _optimized():
  """Compiles as for users, which other tests do not; see `conftest.py`."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.read(name)
  jax.clear_caches()
  jax.config.update(name, False)
  yield
  jax.config.update(name, before)


@pytest.mark.usefixtures('_optimized')
def test_an_average_of_trainings_and_symmetries():
  model = exported_models.averaged('fields')
  inputs = exported_models.inputs()
  outputs = _predict(_in_torch(model), *inputs)
  assert outputs['malignancy_members'].shape == (16, 3)
  exported_models.assert_same(outputs, model.predict(*inputs), atol=_ATOL)


def test_the_mask_for_other_networks_follows_the_setting():
  config = made_run.config_of()
  config.coarse_mask = 'hard'
  net = _in_torch(exported_models.of_config(config)).members[0]
  logits = torch.tensor([-1.0, -1e-3, 0.0, 1e-3, 1.0])
  assert net.pass_mask(logits).tolist() == [0, 0, 1, 1, 1]
  net.coarse_mask = 'none'
  assert net.pass_mask(logits).tolist() == [0] * 5
  net.coarse_mask = 'soft'
  assert net.pass_mask(logits).tolist() == logits.sigmoid().tolist()


def test_one_training_and_its_symmetries(made_model):
  from mtnet_jax.inference import ensemble

  model = ensemble.Ensemble([made_model], symmetries=True)
  arrays, settings = pytorch.arrays_and_settings(model)
  assert settings['members'] == 1 and settings['symmetries']
  settings['coarse_mask'] = 'none'
  net = mtnet.MTNet(settings).eval()
  net.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
  hu, spacing_mm = exported_models.inputs(2)
  outputs = _predict(net, hu, spacing_mm)
  rotated = _predict(net, np.rot90(hu, axes=(1, 2)).copy(), spacing_mm)
  np.testing.assert_allclose(
    rotated['probability'],
    np.rot90(outputs['probability'], axes=(1, 2)),
    atol=_ATOL,
  )
  np.testing.assert_allclose(rotated['malignancy'], outputs['malignancy'])


_USE = """
import numpy as np
with np.load('in.npz') as arrays:
  outputs = predict(arrays['hu'], arrays['spacing'])
np.savez('out.npz', **outputs)
mtnet.save(model, 'trained.safetensors')
again = mtnet.load('trained.safetensors').state_dict()
assert all(torch.equal(v, again[k]) for k, v in model.state_dict().items())
print(sorted({'jax', 'mtnet_jax', 'safetensors'} & sys.modules.keys()))
"""


def test_the_code_of_the_readme_with_only_pytorch(tmp_path):
  model = exported_models.make('fields', temperature=0.8)
  folder = tmp_path / 'exported'
  folder.mkdir()
  pytorch.write(model, folder, name=folder)
  text = (folder / 'README.md').read_text()
  assert 'SIMULATED' in text and '{' not in text
  hu, spacing_mm = exported_models.inputs()
  np.savez(tmp_path / 'in.npz', hu=hu, spacing=spacing_mm)
  missing = ['mtnet_jax', 'tfds_lidc', 'jax', 'flax', 'safetensors']
  printed = exported_models.run_readme(
    folder, tmp_path, missing=missing, then=_USE
  )
  assert printed == '[]\n'
  with np.load(tmp_path / 'out.npz') as outputs:
    exported_models.assert_same(
      dict(outputs), model.predict(hu, spacing_mm), atol=_ATOL
    )


def _with_statistics_of(net, variables, inputs):
  """Takes the batch statistics of some inputs.

  With random statistics, signals grow from layer to layer until probabilities
  are 0 and 1.

  Returns:
    Outputs in float64 with these statistics, and the variables that have them.
  """
  rates = {}
  if not isinstance(net, mtnet_lib.ClassNet):
    rates = {'dropout_rates': (0.0,) * 3}
  net = net.clone(bn_momentum=0.0, dtype=jnp.float64, **rates)
  apply = jax.jit(
    functools.partial(net.apply, mutable=['batch_stats']),
    static_argnames='train',
    compiler_options=fast_compile.OPTIONS,
  )
  wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
  _, changed = apply(wide, *inputs, train=True)
  # Exports hold float32.
  changed = jax.tree.map(lambda x: np.float32(x), changed['batch_stats'])
  wide['batch_stats'] = jax.tree.map(np.float64, changed)
  (logits, taps), _ = apply(wide, *inputs, train=False)
  outputs = jax.device_get((jax.nn.sigmoid(logits), taps.get('cam')))
  return outputs, {**variables, 'batch_stats': changed}


@pytest.mark.long
def test_networks_of_the_paper_s_size():
  """Each network is compared in float64, on the same images and masks.

  In float32, so many layers of random weights have larger rounding errors than
  a tolerance that would detect faults: 1e-4 in PyTorch alone.
  """
  config = made_run.config_of('mtnet')
  variables = made_run.draw_variables(config)
  rng = np.random.default_rng(0)
  inputs = rng.uniform(-1, 1, (4, 64, 64, 3)), rng.random((4, 64, 64, 1)) < 0.2
  inputs = tuple(np.float32(x) for x in inputs)
  expected = {}
  with jax.enable_x64(True):
    for stage, net in nets.make_nets(config).items():
      arguments = inputs[: 1 if stage == 'coarse' else 2]
      expected[stage], variables[stage] = _with_statistics_of(
        net, variables[stage], tuple(map(np.float64, arguments))
      )
  model = exported_models.of_config(config, variables=variables)
  members = _in_torch(model).members[0]
  for stage, (probability, cam) in expected.items():
    assert probability.std() > 0.01, stage
    arguments = [torch.tensor(x.transpose(0, 3, 1, 2)).double() for x in inputs]
    net = members.get_submodule(f'{stage}_net').double()
    with torch.inference_mode():
      logits = net(*arguments[: 1 if stage == 'coarse' else 2])
    if stage == 'class':
      logits, found = logits
      assert oracles.relative(found.numpy(), cam) <= 1e-6
    else:
      logits = logits.permute(0, 2, 3, 1)
    difference = np.abs(logits.sigmoid().numpy() - probability).max()
    assert difference <= 1e-6, stage


def test_two_exports_in_one_process(tmp_path):
  """The second module `mtnet` must not run the first model."""
  code = ''
  for seed in (3, 4):
    folder = tmp_path / f'seed{seed}'
    folder.mkdir()
    model = exported_models.make('plain', seed=seed)
    pytorch.write(model, folder, name=folder)
    readme = (folder / 'README.md').read_text()
    code += re.findall(r'```python\n(.*?)```', readme, re.DOTALL)[0]
    code += 'print(predict(torch.zeros(1, 64, 64), 0.7)["malignancy"].item())\n'
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=True,
  )
  first, second = map(float, done.stdout.split())
  assert first != second
