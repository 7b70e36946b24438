"""The values of a stored config are checked before they are used."""

import json

import made_run
import pytest

from mtnet_jax.models import chain
from mtnet_jax.models import strategies
from mtnet_jax.storage import config_values
from mtnet_jax.storage import shipped
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors


def _write(folder, changes, without=()):
  """Writes a run's config.json with dotted keys changed or left out."""
  tree = json.loads(made_run.config_of().to_json())
  for path, value in changes.items():
    *groups, key = path.split('.')
    group = tree
    for name in groups:
      group = group[name]
    group[key] = value
  for key in without:
    del tree[key]
  (folder / 'config.json').write_text(json.dumps(tree))


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('window', ['a', 'b']),
    ('window', [0, 0]),
    ('window', [400, -1000]),
    ('window', [0]),
    ('window', [0, 1, 2]),
    ('window', list(range(100_000))),
    ('window', [False, True]),
    ('window', [None, 1]),
    ('window', [float('nan'), 1]),
    ('window', [0, float('inf')]),
    ('window', [0, 1e300]),
    ('window', 5),
    ('window', {'low': 0}),
    ('dataset.spacing_mm', 'x'),
    ('dataset.spacing_mm', -1.0),
    ('dataset.spacing_mm', 1e-300),
    ('dataset.spacing_mm', 5.1),
    ('dataset.spacing_mm', float('nan')),
    ('dataset.spacing_mm', None),
    ('dataset.spacing_mm', True),
    ('dataset.limit', '<img src=x onerror=alert(1)>'),
    ('dataset.limit', -1),
    ('dataset.limit', 2.5),
    ('dataset.limit', True),
    ('dataset.limit', None),
    ('dataset.rotate_folds', 'x'),
    ('dataset.rotate_folds', 1 << 31),
    ('dataset.name', 5),
    ('dataset.name', None),
    ('dataset.data_dir', 5),
    ('dataset.data_dir', ['a']),
    ('dtype', 'int8'),
    ('dtype', 'complex64'),
    ('dtype', ['float32']),
    ('dtype', None),
    ('matmul_precision', 'zz'),
    ('coarse_mask', 'zz' * 1000),
    ('coarse_mask', {}),
    ('strategy', 'zz'),
    ('strategy', ['mtnet']),
    ('stages', 5),
    ('stages', 'coarse'),
    ('stages', ['final']),
    ('stages', [['coarse']]),
    ('seed', -1),
    ('image_size', 1),
    ('image_size', 31),
    ('image_size', 64.0),
    ('eval_batch_size', 0),
    ('eval_batch_size', '8'),
  ],
)
def test_a_value_that_cannot_be_used_is_named(tmp_path, key, value):
  _write(tmp_path, {key: value})
  with pytest.raises(errors.InputError, match=rf'config\.json\.{key}') as e:
    workdir.read_config(tmp_path)
  # Without the name of the folder, which may be long.
  assert len(str(e.value).replace(str(tmp_path), '')) < 300


@pytest.mark.parametrize(
  'changes',
  [
    {'window': [-1, 1.5], 'dataset.spacing_mm': 0},
    {'dataset.spacing_mm': 0.1, 'dataset.limit': 1},
    {'dataset.spacing_mm': 5, 'image_size': 32, 'eval_batch_size': 1},
    {'dtype': 'bfloat16', 'matmul_precision': 'default'},
    {'coarse_mask': 'none', 'strategy': 'single', 'stages': ['fine', 'class']},
  ],
)
def test_values_at_their_bounds_are_read(tmp_path, changes):
  _write(tmp_path, changes)
  workdir.read_config(tmp_path)


@pytest.mark.parametrize(
  'key',
  [
    'image_size',
    'window',
    'dtype',
    'matmul_precision',
    'coarse_mask',
    'eval_batch_size',
  ],
)
def test_a_required_key_that_is_missing_is_refused(tmp_path, key):
  _write(tmp_path, {}, without=[key])
  with pytest.raises(errors.InputError, match=f'lacks {key}: it is damaged'):
    workdir.read_config(tmp_path)


def test_other_missing_keys_are_accepted(tmp_path):
  """They are newer than the config, or have a default."""
  without = [
    'cross_entropy_weight',
    'start_from',
    'start_from_dataset',
    'start_from_sha256',
    'weight_average',
  ]
  _write(tmp_path, {'dataset': {'name': 'lidc_nodules/paper'}}, without)
  assert workdir.read_config(tmp_path).weight_average == 0


@pytest.mark.parametrize('name', shipped.names())
def test_configs_of_shipped_models_are_read(name):
  workdir.read_config(shipped.folder_of(name))


@pytest.mark.parametrize(
  'policy',
  [
    'nodules={}',
    'folds={}',
    'slices=all,nodules={}',
    'readers=3, folds={}',
    'split_by=nodule,nodules=relative.csv,folds={}',
  ],
)
def test_a_stored_name_with_a_file_is_refused(tmp_path, policy):
  secret = tmp_path / 'secret'
  name = f'lidc_nodules/phantom?{policy.format(secret)}'
  _write(tmp_path, {'dataset.name': name})
  with pytest.raises(errors.InputError, match='names a file') as e:
    workdir.read_config(tmp_path)
  assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize(
  'name',
  [
    'lidc_nodules/paper-nodules_1a2b3c4d5e-folds_by_nodule_1a2b3c4d5e',
    'lidc_nodules/all?readers=3-4,consensus=1/2,split_by=nodule',
  ],
)
def test_a_name_that_needs_no_file_is_read(tmp_path, name):
  _write(tmp_path, {'dataset.name': name})
  assert workdir.read_config(tmp_path).dataset.name == name


def test_a_config_of_more_than_a_megabyte_is_refused(tmp_path):
  _write(tmp_path, {})
  path = tmp_path / 'config.json'
  text = path.read_text()
  path.write_text(text + ' ' * ((1 << 20) - len(text)))
  workdir.read_config(tmp_path)
  path.write_text(path.read_text() + ' ')
  with pytest.raises(errors.InputError, match='more than 1 MiB'):
    workdir.read_config(tmp_path)


@pytest.mark.parametrize(
  'more', [{str(i): {} for i in range(300)}, [{}] * 300, [[{'a': {}}] * 150]]
)
def test_a_config_of_hundreds_of_groups_is_refused(tmp_path, more):
  _write(tmp_path, {'more': more})
  with pytest.raises(errors.InputError, match='more than 256 groups'):
    workdir.read_config(tmp_path)


def test_the_choices_are_those_of_the_networks():
  assert config_values.STAGES == strategies.STAGES
  assert config_values.ONE_OF['strategy'] == tuple(strategies.STRATEGIES)
  assert config_values.ONE_OF['coarse_mask'] == chain.COARSE_MASKS
