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


def test_claim_writes_the_config_and_takes_it_again(tmp_path):
  workdir.claim(tmp_path / 'run', config())
  before = (tmp_path / 'run/config.json').read_bytes()
  workdir.claim(tmp_path / 'run', config())
  assert (tmp_path / 'run/config.json').read_bytes() == before
  # Tuples become JSON's lists; everything else comes back as it was, beside
  # what configs have had since.
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


def test_a_run_of_before_goes_on_where_nothing_new_is_asked_for(tmp_path):
  stage = {'epochs': 3}
  workdir.claim(tmp_path, config(coarse_stage=stage))
  off = {'coarse_stage': {**stage, 'weight_decay': 0.0}, 'weight_average': 0.0}
  workdir.claim(tmp_path, config(**off))
  with pytest.raises(errors.InputError, match='weight_average was 0.0 and is'):
    workdir.claim(tmp_path, config(**off | {'weight_average': 0.9}))


def test_a_new_field_as_the_config_file_has_it_is_no_difference(tmp_path):
  """As in a copy of a config file with a field of one's own."""
  workdir.claim(tmp_path, config(augment={'zoom': 1.1}))
  mine = config(augment={'zoom': 1.1, 'noise': 0.1}, mixup={'alpha': 0.2})
  workdir.claim(tmp_path, mine, changed={'seed', 'augment.zoom'})
  for changed in ({'augment.noise'}, {'augment'}):
    with pytest.raises(errors.InputError, match='noise was nothing and is now'):
      workdir.claim(tmp_path, mine, changed=changed)
  for changed in ({'mixup.alpha'}, {'mixup'}):
    with pytest.raises(errors.InputError, match='mixup was nothing and is now'):
      workdir.claim(tmp_path, mine, changed=changed)
  # What the project itself has added is compared with what was done before.
  averaged = config(augment={'zoom': 1.1}, weight_average=0.9)
  with pytest.raises(errors.InputError, match='weight_average was 0.0 and is'):
    workdir.claim(tmp_path, averaged, changed=())
  # And a field that is not new is compared, whoever has set it.
  with pytest.raises(errors.InputError, match='zoom was 1.1 and is now 1.2'):
    workdir.claim(tmp_path, config(augment={'zoom': 1.2}), changed=())


def _keys(tree, prefix=''):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _keys(value, f'{prefix}{key}.')
    else:
      yield prefix + key


def test_every_field_that_configs_have_got_says_what_was_done_before():
  """Or runs of before could not go on, though nothing new is asked for."""
  path = main_job.ROOT / 'tests' / 'fixtures' / 'first_config_keys.txt'
  first = set(path.read_text().split())
  new = {
    group + key for group, values in configs._NEW_KEYS.items() for key in values
  }
  now = set(_keys(project_configs.CONFIGS.get_config().to_dict()))
  assert now - first <= new, (
    'configs/mtnet.py has a new field: add it to _NEW_KEYS of'
    ' mtnet_jax/storage/configs.py, with the value that does what was done'
    ' before there was the field.'
  )
  assert first | new <= now, (
    'a field of configs/mtnet.py is gone or has another name: old runs have it;'
    ' see _FORMER_KEYS of mtnet_jax/storage/configs.py.'
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


_OF_BEFORE = {
  'looks_per_epoch': 10,
  'steps_at_once': 0,
  'rank_loss': {'top_k': 20, 'most': 50},
}
_OF_TODAY = {
  'views_per_image': 10,
  'steps_per_call': 0,
  'rank_loss': {'top_k': 20, 'max_top_k': 50},
}


def test_keys_that_had_another_name_are_read_under_their_name_of_today(
  tmp_path,
):
  workdir.claim(tmp_path, config(**_OF_BEFORE))
  found = workdir.read_config(tmp_path).to_dict()
  assert found == configs.upgraded(config(**_OF_TODAY).to_dict()) | {
    'seg_net': {'widths': [1, 2]},
    'stages': ['coarse'],
    'window': [-1000.0, 400.0],
  }
  # The same run, which goes on; another value is another run.
  workdir.claim(tmp_path, config(**_OF_TODAY))
  with pytest.raises(errors.InputError, match='views_per_image was 10 and is'):
    workdir.claim(tmp_path, config(**_OF_TODAY | {'views_per_image': 9}))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='file/run.*--workdir'):
    files.make_folder(tmp_path / 'file' / 'run')


def test_what_is_no_run_or_not_finished_says_so(tmp_path):
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


def test_a_config_of_another_version_is_refused_by_what_it_lacks(tmp_path):
  tree = config().to_dict()
  del tree['strategy']
  (tmp_path / 'config.json').write_text(json.dumps(tree))
  with pytest.raises(errors.InputError, match='lacks strategy: .*version'):
    workdir.read_config(tmp_path)


@pytest.mark.parametrize('group', ('dataset', 'seg_net', 'class_net'))
@pytest.mark.parametrize('value', (3, [], 'text', None))
def test_a_config_whose_groups_are_none_is_refused(tmp_path, group, value):
  tree = {**config().to_dict(), group: value}
  (tmp_path / 'config.json').write_text(json.dumps(tree))
  with pytest.raises(errors.InputError, match=f'damaged: its {group}'):
    workdir.read_config(tmp_path)
