"""`mtnet_jax.export`: its formats, their files and their errors."""

import ast
import importlib.util
import json
import sys

import exported_models
import main_job
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from mtnet_jax import export
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import pytorch
from mtnet_jax.inference.torch import single_file
from mtnet_jax.models import mtnet
from mtnet_jax.system import errors
from mtnet_jax.weights import exported
from mtnet_jax.weights import load

_KEYS = (
  main_job.ROOT / 'tests/fixtures/deeplabv3plus_xception65_torch_keys.json'
)


def _run(monkeypatch, *flags):
  monkeypatch.setattr(sys, 'argv', ['export', *map(str, flags)])
  export.main()


def test_pytorch_is_written_without_pytorch(
  made_run_dir, monkeypatch, tmp_path, capsys
):
  monkeypatch.setitem(sys.modules, 'torch', None)
  out = tmp_path / 'out'
  flags = f'--checkpoint={made_run_dir}', f'--out={out}', '--format=pytorch'
  _run(monkeypatch, *flags)
  assert f'{out}/README.md' in capsys.readouterr().out
  found = {path.name for path in out.iterdir()}
  assert found == {'README.md', 'mtnet.py', 'weights.safetensors'}


def test_an_unknown_format_is_one_line(monkeypatch, tmp_path, capsys):
  out = tmp_path / 'out'
  with pytest.raises(SystemExit) as end:
    _run(monkeypatch, '--checkpoint=lidc-small', f'--out={out}', '--format=tf')
  assert end.value.code == 2
  *_, line = capsys.readouterr().err.strip().splitlines()
  assert "'tf'" in line
  for form in ('stablehlo', 'pytorch', 'onnx'):
    assert form in line
  assert not out.exists()


def test_missing_packages_are_named_before_a_model_is_read(
  monkeypatch, tmp_path
):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *args: (
      None if name in ('torch', 'onnxscript') else find(name, *args)
    ),
  )
  with pytest.raises(errors.InputError) as error:
    export.write('nowhere', tmp_path / 'out', 'onnx')
  assert 'torch' in str(error.value) and 'onnxscript' in str(error.value)
  assert "pip install 'mtnet_jax[onnx]'" in str(error.value)
  assert not list(tmp_path.iterdir())


def test_an_average_is_not_exported_as_stablehlo(tmp_path):
  with pytest.raises(errors.InputError) as error:
    export.write('lidc-small', tmp_path / 'out')
  assert 'lidc-small is an average of 2 networks' in str(error.value)
  assert '--format=pytorch' in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('variants', 'temperatures', 'reason'),
  [
    (('plain', 'fields'), (1.0, 1.0), 'differ in more than their weights'),
    # PyTorch's average has one temperature, applied to the mean.
    (('plain', 'plain'), (1.0, 2.0), 'calibrated one by one'),
    (('plain',), (2.0,), 'calibrated one by one'),
    (('plain',), (1.0,), 'an average of one model'),
  ],
)
def test_averages_that_are_not_of_one_method_are_refused(
  variants, temperatures, reason
):
  models = [
    exported_models.make(variant, temperature=temperature)
    for variant, temperature in zip(variants, temperatures, strict=True)
  ]
  with pytest.raises(errors.InputError, match=reason):
    pytorch.arrays_and_settings(ensemble.Ensemble(models))


def test_an_average_of_averages_is_refused():
  average = ensemble.Ensemble([exported_models.make('plain')], symmetries=True)
  with pytest.raises(errors.InputError, match='average of averages'):
    pytorch.arrays_and_settings(ensemble.Ensemble([average]))


def test_runs_that_differ_in_their_seed_are_exported_as_one_average():
  models = [exported_models.make('plain', seed=seed) for seed in (3, 4)]
  config = models[1].config.copy_and_resolve_references()
  with config.unlocked():
    config.seed = 4
  models[1].config = config.lock()
  _, settings = pytorch.arrays_and_settings(ensemble.Ensemble(models))
  assert settings['members'] == 2 and not settings['symmetries']


@pytest.mark.parametrize('widths', [(4,), (4, 4, 4)])
def test_a_stem_without_public_names_is_refused(widths):
  net = mtnet.CoarseSegNet(stem_widths=widths)
  with pytest.raises(errors.InputError, match='plain convolutions'):
    pytorch._check({'coarse_net': net}, 'made up')


def test_the_code_needs_only_pytorch():
  text = single_file.source('A docstring.')
  tree = ast.parse(text)
  assert ast.get_docstring(tree) == 'A docstring.'
  imported = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      imported |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      imported.add(node.module)
  packages = {name.partition('.')[0] for name in imported}
  assert packages - sys.stdlib_module_names == {'torch'}
  defined = [
    node.name
    for node in tree.body
    if isinstance(node, (ast.ClassDef, ast.FunctionDef))
  ]
  defined += [
    name.id
    for node in tree.body
    if isinstance(node, ast.Assign)
    for target in node.targets
    for name in ast.walk(target)
    if isinstance(name, ast.Name)
  ]
  # A second definition of a name would replace the first.
  assert len(defined) == len(set(defined)) and 'load' in defined
  assert max(map(len, text.splitlines())) <= 80


def test_names_and_shapes_are_the_public_weights():
  shapes = load._variable_shapes(mtnet.CoarseSegNet())
  variables = {'params': {}, 'batch_stats': {}}
  for name, shape in shapes.items():
    group = variables
    *path, leaf = name.split('/')
    for key in path:
      group = group.setdefault(key, {})
    group[leaf] = np.zeros(shape, np.int8)
  found = exported.tensors('coarse_net', mtnet.CoarseSegNet(), variables)
  public = json.loads(_KEYS.read_text(encoding='utf-8'))
  # Our network has one class.
  public['cls_conv.weight'][0] = public['cls_conv.bias'][0] = 1
  assert {name: list(value.shape) for name, value in found.items()} == public


def test_settings_are_all_fields_of_the_networks():
  model = exported_models.make('fields', temperature=0.5)
  arrays, settings = pytorch.arrays_and_settings(model)
  assert (
    settings
    | {
      'image_size': 61,
      'window': [-800, 300],
      'spacing_mm': 0.7,
      'coarse_mask': 'soft',
      'temperature': 0.5,
      'symmetries': False,
      'members': 1,
      'simulated': True,
    }
    == settings
  )
  for part, fields in (
    ('coarse_net', exported_models.SEG_FIELDS),
    ('fine_net', exported_models.SEG_FIELDS),
    ('class_net', exported_models.CLASS_FIELDS),
  ):
    for name, value in fields.items():
      expected = list(value) if isinstance(value, tuple) else value
      assert settings[part][name] == expected, (part, name)
  assert settings['coarse_net']['maps'] == 0
  assert settings['fine_net']['maps'] == 2
  assert {name.split('.')[2] for name in arrays} == {
    'coarse_net',
    'class_net',
    'fine_net',
  }
  json.dumps(settings)


def test_half_precision_is_exported_as_float32(made_run_dir, tmp_path):
  import mtnet_jax
  from mtnet_jax.inference import packing

  packing.write(made_run_dir, tmp_path / 'half', float16=True)
  arrays, _ = pytorch.arrays_and_settings(mtnet_jax.load(tmp_path / 'half'))
  assert {value.dtype.name for value in arrays.values()} == {'float32'}
  kernel = arrays['members.0.class_net.conv2.weight']
  np.testing.assert_array_equal(kernel, kernel.astype(np.float16))
  export.write(tmp_path / 'half', tmp_path / 'out', 'pytorch')
  written = safetensors_numpy.load_file(tmp_path / 'out/weights.safetensors')
  np.testing.assert_array_equal(
    written['members.0.class_net.conv2.weight'], kernel
  )
