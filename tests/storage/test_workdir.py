"""The run directory belongs to one config."""

import json

import main_job
import ml_collections
import numpy as np
import project_configs
import pytest

from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import configs
from mtnet_jax.storage import files
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors

_USED_TO_PREDICT = {
  'image_size': 64,
  'window': (-1000.0, 400.0),
  'dtype': 'float32',
  'matmul_precision': 'highest',
  'coarse_mask': 'hard',
  'eval_batch_size': 8,
}


def config(**changes):
  tree = {
    'seed': 0,
    'seg_net': {'widths': (1, 2)},
    'class_net': {},
    'dataset': {'name': 'a'},
    'stages': ('coarse',),
    'strategy': 'mtnet',
    **_USED_TO_PREDICT,
  }
  return ml_collections.ConfigDict({**tree, **changes}).lock()


def test_claim_writes_the_config_and_accepts_it_again(tmp_path):
  workdir.claim(tmp_path / 'run', config())
  before = (tmp_path / 'run/config.json').read_bytes()
  workdir.claim(tmp_path / 'run', config())
  assert (tmp_path / 'run/config.json').read_bytes() == before
  # Tuples become lists in JSON, newer keys get their values, and everything
  # else is unchanged.
  found = workdir.read_config(tmp_path / 'run').to_dict()
  assert found == {
    'seed': 0,
    'seg_net': {'widths': [1, 2]},
    'class_net': {'dropout_rate': 0.0},
    'dataset': {'name': 'a'},
    'stages': ['coarse'],
    'strategy': 'mtnet',
    **_USED_TO_PREDICT,
    'window': [-1000.0, 400.0],
    'cross_entropy_weight': 0.0,
    'start_from': '',
    'start_from_dataset': '',
    'start_from_sha256': '',
    'weight_average': 0.0,
  }


def test_an_earlier_run_continues_unless_a_new_key_is_changed(tmp_path):
  stage = {'epochs': 3}
  workdir.claim(tmp_path, config(coarse_stage=stage))
  off = {'coarse_stage': {**stage, 'weight_decay': 0.0}, 'weight_average': 0.0}
  workdir.claim(tmp_path, config(**off))
  with pytest.raises(errors.InputError, match='weight_average was 0.0 and is'):
    workdir.claim(tmp_path, config(**off | {'weight_average': 0.9}))


def test_a_new_field_with_the_files_value_is_no_difference(tmp_path):
  """A user may add fields to a copy of a config file."""
  workdir.claim(tmp_path, config(augment={'zoom': 1.1}))
  mine = config(augment={'zoom': 1.1, 'noise': 0.1}, mixup={'alpha': 0.2})
  workdir.claim(tmp_path, mine, changed={'seed', 'augment.zoom'})
  for changed in ({'augment.noise'}, {'augment'}):
    with pytest.raises(errors.InputError, match='noise was nothing and is now'):
      workdir.claim(tmp_path, mine, changed=changed)
  for changed in ({'mixup.alpha'}, {'mixup'}):
    with pytest.raises(errors.InputError, match='mixup was nothing and is now'):
      workdir.claim(tmp_path, mine, changed=changed)
  # A key that the project added is compared with the earlier behaviour.
  averaged = config(augment={'zoom': 1.1}, weight_average=0.9)
  with pytest.raises(errors.InputError, match='weight_average was 0.0 and is'):
    workdir.claim(tmp_path, averaged, changed=())
  # A field that is not new is always compared.
  with pytest.raises(errors.InputError, match='zoom was 1.1 and is now 1.2'):
    workdir.claim(tmp_path, config(augment={'zoom': 1.2}), changed=())


def _keys(tree, prefix=''):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _keys(value, f'{prefix}{key}.')
    else:
      yield prefix + key


def test_every_new_key_has_a_value_for_earlier_configs():
  """Otherwise earlier runs could not continue."""
  path = main_job.ROOT / 'tests' / 'fixtures' / 'first_config_keys.txt'
  first = set(path.read_text().split())
  new = {
    group + key for group, values in configs._NEW_KEYS.items() for key in values
  }
  now = set(_keys(project_configs.CONFIGS.get_config().to_dict()))
  assert now - first <= new, (
    'configs/mtnet.py has a new key: add it to _NEW_KEYS of'
    ' mtnet_jax/storage/configs.py, with the value that reproduces what was'
    ' done without the key.'
  )
  assert first | new <= now, (
    'configs/mtnet.py lacks a key that earlier runs have: if it was renamed,'
    ' add it to _FORMER_KEYS of mtnet_jax/storage/configs.py.'
  )
  assert not first & new


def test_another_config_is_refused_with_every_difference(tmp_path):
  workdir.claim(tmp_path, config())
  with pytest.raises(errors.InputError) as error:
    workdir.claim(tmp_path, config(seed=3, dataset={'name': 'b'}, new=1))
  message = str(error.value)
  assert 'seed was 0 and is now 3' in message
  assert 'dataset.name was a and is now b' in message
  assert 'new was nothing and is now 1' in message
  assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 0


_FORMER = {
  'looks_per_epoch': 10,
  'steps_at_once': 0,
  'rank_loss': {'top_k': 20, 'most': 50},
}
_CURRENT = {
  'views_per_image': 10,
  'steps_per_call': 0,
  'rank_loss': {'top_k': 20, 'max_top_k': 50},
}


def test_former_keys_are_read_under_their_current_names(tmp_path):
  workdir.claim(tmp_path, config(**_FORMER))
  found = workdir.read_config(tmp_path).to_dict()
  assert found == configs.upgraded(config(**_CURRENT).to_dict()) | {
    'seg_net': {'widths': [1, 2]},
    'stages': ['coarse'],
    'window': [-1000.0, 400.0],
  }
  # It is the same run and continues; another value is a difference.
  workdir.claim(tmp_path, config(**_CURRENT))
  with pytest.raises(errors.InputError, match='views_per_image was 10 and is'):
    workdir.claim(tmp_path, config(**_CURRENT | {'views_per_image': 9}))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='file/run.*--workdir'):
    files.make_folder(tmp_path / 'file' / 'run')


def test_a_missing_or_unfinished_run_is_named(tmp_path):
  with pytest.raises(errors.InputError, match='not a run directory'):
    workdir.read_config(tmp_path)
  with pytest.raises(errors.InputError, match='not finished'):
    workdir.read_metrics(tmp_path)
  with pytest.raises(errors.InputError, match='has no checkpoint'):
    workdir.load_variables(tmp_path, ('coarse',))


@pytest.mark.parametrize('value', (np.nan, -np.inf))
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
  workdir.claim(tmp_path, config())
  directory = workdir.checkpoint_dir(tmp_path, 'coarse')
  arrays = {'a': {'b': np.array([1, value], np.float32)}}
  checkpoint.Checkpoints(directory).save_best(1, arrays, {})
  with pytest.raises(errors.InputError, match='coarse: a/b .* not finite.'):
    workdir.load_variables(tmp_path, ('coarse',))


def test_a_damaged_config_is_named(tmp_path):
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(errors.InputError, match='config.json is damaged'):
    workdir.read_config(tmp_path)


def test_a_config_without_a_key_is_refused(tmp_path):
  tree = config().to_dict()
  del tree['strategy']
  (tmp_path / 'config.json').write_text(json.dumps(tree))
  with pytest.raises(errors.InputError, match='lacks strategy: .*version'):
    workdir.read_config(tmp_path)


@pytest.mark.parametrize('group', ('dataset', 'seg_net', 'class_net'))
@pytest.mark.parametrize('value', (3, [], 'text', None))
def test_a_config_whose_groups_are_not_groups_is_refused(
  tmp_path, group, value
):
  tree = {**config().to_dict(), group: value}
  (tmp_path / 'config.json').write_text(json.dumps(tree))
  with pytest.raises(errors.InputError, match=f'damaged: its {group}'):
    workdir.read_config(tmp_path)
