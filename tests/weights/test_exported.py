"""Training can start from networks that were exported to PyTorch."""

import json

import exported_models
import jax
import made_run
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from mtnet_jax import pretrained
from mtnet_jax.inference import pytorch
from mtnet_jax.models import nets
from mtnet_jax.system import errors
from mtnet_jax.training import from_public
from mtnet_jax.weights import exported
from mtnet_jax.weights import load
from mtnet_jax.weights import sources

_TASKS = {'segmentation': 'coarse', 'classification': 'class'}


@pytest.fixture(scope='module', name='written')
def _written(tmp_path_factory):
  """Returns a model and the file of its exported weights."""
  model = exported_models.make('fields')
  folder = tmp_path_factory.mktemp('exported')
  pytorch.write(model, folder, name=folder)
  return model, folder / pytorch.WEIGHTS


@pytest.mark.parametrize('task', _TASKS)
def test_every_variable_comes_back_as_it_was(written, task):
  model, path = written
  stage = _TASKS[task]
  net = nets.make_nets(model.config)[stage]
  weights = load.load(path, net)
  assert weights.newly_initialised == ()
  expected = model.variables[stage]
  assert jax.tree.structure(weights.variables) == jax.tree.structure(
    jax.tree.map(np.asarray, dict(expected))
  )
  jax.tree.map(np.testing.assert_array_equal, weights.variables, expected)
  for name, value in weights.fields.items():
    assert getattr(net, name) == value, name
  assert set(weights.fields) == set(sources.EXPORTED_FIELDS[task])
  # The file's other networks are dropped.
  assert all(f'.{stage}_net.' not in name for name in weights.dropped)
  assert any('.fine_net.' in name for name in weights.dropped)


def test_an_average_gives_its_first_member(tmp_path):
  model = exported_models.averaged('plain')
  pytorch.write(model, tmp_path, name='both')
  net = nets.make_nets(model.models[0].config)['coarse']
  weights = load.load(tmp_path / pytorch.WEIGHTS, net)
  jax.tree.map(
    np.testing.assert_array_equal,
    weights.variables,
    model.models[0].variables['coarse'],
  )


def test_a_config_gets_the_fields_that_the_weights_need(written, tmp_path):
  model, path = written
  config = made_run.config_of()
  sizes = {'middle_blocks': 2, 'tail_widths': (6, 5)}
  with config.unlocked():
    config.seg_net.update(sizes)
    config.class_net.middle_blocks = 1
    config.pretrained.segmentation = str(path)
    config.pretrained.classification = str(path)
  filled = from_public.fill_in(config, tmp_path / 'run')
  for group, fields in (
    (filled.seg_net, exported_models.SEG_FIELDS),
    (filled.class_net, exported_models.CLASS_FIELDS),
  ):
    for name, value in fields.items():
      assert group[name] == value, name
  with config.unlocked():
    config.seg_net.tail_dilation = 2
  with pytest.raises(errors.InputError, match='tail_dilation=2 contradicts'):
    from_public.fill_in(config, tmp_path / 'run')


def test_inspect_reports_both_networks(written):
  text = pretrained.report(written[1])
  coarse, class_ = text.split('\n\n')
  assert 'Coarse Seg-net exported to PyTorch' in coarse
  assert 'CoarseSegNet' in coarse and 'tail_dilation=3' in coarse
  assert '--config.pretrained.segmentation=' in coarse
  assert 'Class-net exported to PyTorch' in class_
  assert 'pool_padding=same' in class_
  for part in (coarse, class_):
    assert 'initialised none' in part
    used, total = part.partition('parameters  ')[2].split('\n')[0].split(' of ')
    assert used == total


def test_another_size_does_not_fit(written):
  config = made_run.config_of()
  with pytest.raises(errors.InputError, match='lacks|unknown|must be'):
    load.load(written[1], nets.make_nets(config)['coarse'])


def _rewritten(path, out, change):
  """Writes a file with other metadata, which `change` makes of the settings."""
  arrays = safetensors_numpy.load_file(path)
  settings = None
  with open(path, 'rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    metadata = json.loads(file.read(length))['__metadata__']
    settings = json.loads(metadata[exported.SETTINGS])
  safetensors_numpy.save_file(arrays, out, change(settings))
  return out


def _field(part, name, value):
  def change(settings):
    settings[part][name] = value
    return {exported.SETTINGS: json.dumps(settings)}

  return change


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    (lambda _: None, 'but no settings'),
    (lambda _: {'format': 'pt'}, 'but no settings'),
    (lambda _: {exported.SETTINGS: '{'}, 'settings are damaged'),
    (lambda _: {exported.SETTINGS: '[' * 100_000}, 'settings are damaged'),
    (lambda _: {exported.SETTINGS: '[]'}, 'settings are damaged'),
    (lambda _: {exported.SETTINGS: '{"coarse_net": 3}'}, 'damaged'),
    (
      lambda old: {exported.SETTINGS: json.dumps({**old, 'coarse_net': 3})},
      'damaged',
    ),
    (_field('coarse_net', 'bn_epsilon', float('nan')), 'bn_epsilon'),
    (_field('coarse_net', 'bn_epsilon', '1e-3'), 'bn_epsilon'),
    (_field('coarse_net', 'bn_epsilon', 10**400), 'damaged'),
    (_field('coarse_net', 'tail_dilation', 10**9), 'tail_dilation'),
    (_field('coarse_net', 'tail_dilation', True), 'tail_dilation'),
    (_field('coarse_net', 'skip_relu', 'no'), 'skip_relu'),
    (_field('coarse_net', 'aspp_rates', []), 'aspp_rates'),
    (_field('coarse_net', 'aspp_rates', 6), 'damaged'),
    (_field('coarse_net', 'input_std', [0.0]), 'input_std'),
    (_field('coarse_net', 'input_mean', [0, 0]), 'input_mean'),
  ],
)
def test_settings_of_a_stranger_are_checked(written, tmp_path, change, reason):
  model, path = written
  path = _rewritten(path, tmp_path / 'changed.safetensors', change)
  net = nets.make_nets(model.config)['coarse']
  with pytest.raises(errors.InputError, match=reason) as error:
    load.load(path, net)
  assert '\n' not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('middle_blocks', 10**9),
    ('middle_blocks', -1),
    ('exit_width', 10**12),
    ('entry_widths', [4] * 1000),
    ('entry_widths', [6]),
    ('stem_widths', 'ab'),
    ('stem_widths', [4, 4, 4]),
  ],
)
def test_sizes_of_a_stranger_are_checked(written, tmp_path, name, value):
  path = _rewritten(
    written[1],
    tmp_path / 'changed.safetensors',
    _field('coarse_net', name, value),
  )
  with pytest.raises(errors.InputError, match=name):
    pretrained.report(path)


@pytest.mark.extra
def test_without_settings_a_state_dict_of_pytorch_is_refused(written, tmp_path):
  torch = pytest.importorskip('torch', reason='needs the extra `interop`')
  arrays = safetensors_numpy.load_file(written[1])
  path = tmp_path / 'model.pth'
  torch.save({k: torch.tensor(v) for k, v in arrays.items()}, path)
  with pytest.raises(errors.InputError, match=r'mtnet\.save'):
    pretrained.report(path)


def test_a_strategy_that_decides_a_field_otherwise_is_refused(tmp_path):
  config = made_run.config_of()
  with config.unlocked():
    config.class_net.use_coarse_mask = False
  folder = tmp_path / 'exported'
  folder.mkdir()
  pytorch.write(exported_models.of_config(config), folder, name=folder)
  single = made_run.config_of()
  with single.unlocked():
    single.strategy = 'single'
    single.pretrained.classification = str(folder / pytorch.WEIGHTS)
  with pytest.raises(errors.InputError, match="strategy 'single' has True"):
    from_public.fill_in(single, tmp_path / 'run')
