"""Results of one evaluation never take the folder of another."""

import json

import pytest

from mtnet_jax.storage import evaluations
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors

_RESULTS = {
  'dataset': 'lidc_nodules/all',
  'fingerprint': '0123456789abcdef',
  'split': 'test',
  'limit': 0,
  'symmetries': False,
  'members': [{'workdir': 'runs/a', 'id': 'aaaa', 'seed': 0}],
}


def _folder(tmp_path, dataset='lidc_nodules/all'):
  return workdir.evaluation_dir(tmp_path, dataset, 'test')


def _write(folder, results):
  folder.mkdir(parents=True)
  (folder / 'records.csv').write_text('nodule_id\nn\n')
  (folder / 'metrics.json').write_text(json.dumps(results))


def test_the_plain_case_has_the_plain_name(tmp_path):
  folder = _folder(tmp_path)
  assert folder == tmp_path / 'evaluations' / 'lidc_nodules-all-test'
  assert evaluations.choose(folder, _RESULTS) == folder
  # What another evaluation left before it was written is nothing.
  folder.mkdir(parents=True)
  assert evaluations.choose(folder, _RESULTS) == folder


def test_the_same_evaluation_replaces_its_own_results(tmp_path):
  folder = _folder(tmp_path)
  _write(folder, {**_RESULTS, 'test': {'nodules': 3}})
  # The run may have been moved, and was given by another path.
  moved = {**_RESULTS, 'members': [{'workdir': '/b', 'id': 'aaaa'}]}
  assert evaluations.choose(folder, moved) == folder
  evaluations.check_out(folder, moved)


@pytest.mark.parametrize(
  'changes',
  [
    {'dataset': 'lidc_nodules/all?a=b'},
    {'fingerprint': 'fedcba9876543210'},
    {'split': 'all'},
    {'limit': 5},
    {'symmetries': True},
    {'members': [{'workdir': 'runs/a', 'id': 'bbbb', 'seed': 0}]},
    {'members': [{'id': 'aaaa'}, {'id': 'bbbb'}]},
  ],
)
def test_another_evaluation_gets_a_folder_of_its_own(tmp_path, changes):
  folder, other = _folder(tmp_path), {**_RESULTS, **changes}
  _write(folder, _RESULTS)
  found = evaluations.choose(folder, other)
  assert found.parent == folder.parent
  assert found.name.startswith('lidc_nodules-all-test-')
  assert len(found.name) == len(folder.name) + 1 + 8
  _write(found, other)
  # Each comes back to its own.
  assert evaluations.choose(folder, other) == found
  assert evaluations.choose(folder, _RESULTS) == folder
  assert evaluations.candidates(folder) == [(folder, _RESULTS), (found, other)]
  with pytest.raises(errors.InputError, match='choose another --out'):
    evaluations.check_out(folder, other)


def test_names_that_fall_together_do_not_share_a_folder(tmp_path):
  """'?' and '-' are both '-' in a folder's name."""
  left, right = (_folder(tmp_path, f'lidc_nodules/paper{x}a') for x in '?-')
  assert left == right
  _write(left, {**_RESULTS, 'dataset': 'lidc_nodules/paper?a'})
  mine = {**_RESULTS, 'dataset': 'lidc_nodules/paper-a'}
  assert evaluations.choose(right, mine) != left


@pytest.mark.parametrize('text', ['{', '[]', '3', '{"members": [1]}', '{}'])
def test_what_is_no_result_is_not_overwritten(tmp_path, text):
  folder = _folder(tmp_path)
  folder.mkdir(parents=True)
  (folder / 'metrics.json').write_text(text)
  assert evaluations.choose(folder, _RESULTS) != folder


def test_a_run_directory_is_no_folder_for_results(tmp_path):
  (tmp_path / 'metrics.json').write_text('{"dataset": "lidc_nodules/all"}')
  with pytest.raises(errors.InputError, match='something else'):
    evaluations.check_out(tmp_path, _RESULTS)


def test_where_a_short_hash_falls_together_the_whole_one_follows(tmp_path):
  folder, other = _folder(tmp_path), {**_RESULTS, 'limit': 5}
  _write(folder, _RESULTS)
  _write(evaluations.choose(folder, other), {**_RESULTS, 'limit': 6})
  found = evaluations.choose(folder, other)
  assert len(found.name) == len(folder.name) + 1 + 64


def test_other_names_are_no_candidates(tmp_path):
  folder = _folder(tmp_path)
  assert evaluations.candidates(folder) == []
  _write(folder, _RESULTS)
  _write(folder.with_name(f'{folder.name}-limit5'), {**_RESULTS, 'limit': 5})
  _write(folder.with_name(f'{folder.name}-ensemble2'), _RESULTS)
  folder.with_name(f'{folder.name}-01234567').mkdir()
  assert evaluations.candidates(folder) == [(folder, _RESULTS)]
