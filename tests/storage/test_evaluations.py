"""Results of one evaluation never replace those of another."""

import json
import os

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
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'records.csv').write_text('nodule_id\nn\n')
  (folder / 'metrics.json').write_text(json.dumps(results))


def _choose(folder, results, **kwargs):
  with evaluations.opened(folder, results, **kwargs) as found:
    return found


def test_the_first_evaluation_has_the_plain_name(tmp_path):
  folder = _folder(tmp_path)
  assert folder == tmp_path / 'evaluations' / 'lidc_nodules-all-test'
  assert _choose(folder, _RESULTS) == folder
  # An evaluation that wrote no results leaves the folder free.
  assert not list(folder.iterdir())
  assert _choose(folder, _RESULTS) == folder


def test_the_same_evaluation_replaces_its_own_results(tmp_path):
  folder = _folder(tmp_path)
  _write(folder, {**_RESULTS, 'test': {'nodules': 3}})
  # The run may have been moved, so that its path differs.
  moved = {**_RESULTS, 'members': [{'workdir': '/b', 'id': 'aaaa'}]}
  assert _choose(folder, moved) == folder
  _choose(None, moved, out=folder)


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
  found = _choose(folder, other)
  assert found.parent == folder.parent
  assert found.name.startswith('lidc_nodules-all-test-')
  assert len(found.name) == len(folder.name) + 1 + 8
  with evaluations.opened(folder, other) as again:
    assert again == found
    evaluations.write(again, other, [{'nodule_id': 'n'}])
  # Each evaluation finds its own folder again.
  assert _choose(folder, other) == found
  assert _choose(folder, _RESULTS) == folder
  assert evaluations.candidates(folder) == [(folder, _RESULTS), (found, other)]
  with pytest.raises(errors.InputError, match='choose another --out'):
    _choose(None, other, out=folder)


def test_datasets_with_the_same_folder_name_share_no_folder(tmp_path):
  """Both '?' and '-' become '-' in the name of a folder."""
  left, right = (_folder(tmp_path, f'lidc_nodules/paper{x}a') for x in '?-')
  assert left == right
  _write(left, {**_RESULTS, 'dataset': 'lidc_nodules/paper?a'})
  mine = {**_RESULTS, 'dataset': 'lidc_nodules/paper-a'}
  assert _choose(right, mine) != left


@pytest.mark.parametrize('text', ['{', '[]', '3', '{"members": [1]}', '{}'])
def test_a_file_that_is_not_a_result_is_not_overwritten(tmp_path, text):
  folder = _folder(tmp_path)
  folder.mkdir(parents=True)
  (folder / 'metrics.json').write_text(text)
  assert _choose(folder, _RESULTS) != folder


def test_a_run_directory_is_refused_as_a_folder_for_results(tmp_path):
  (tmp_path / 'metrics.json').write_text('{"dataset": "lidc_nodules/all"}')
  with pytest.raises(errors.InputError, match='of another evaluation'):
    _choose(None, _RESULTS, out=tmp_path)


def test_the_whole_hash_is_used_if_the_short_one_is_taken(tmp_path):
  folder, other = _folder(tmp_path), {**_RESULTS, 'limit': 5}
  _write(folder, _RESULTS)
  _write(_choose(folder, other), {**_RESULTS, 'limit': 6})
  found = _choose(folder, other)
  assert len(found.name) == len(folder.name) + 1 + 64


def test_folders_of_other_names_are_not_candidates(tmp_path):
  folder = _folder(tmp_path)
  assert evaluations.candidates(folder) == []
  _write(folder, _RESULTS)
  _write(folder.with_name(f'{folder.name}-limit5'), {**_RESULTS, 'limit': 5})
  _write(folder.with_name(f'{folder.name}-ensemble2'), _RESULTS)
  folder.with_name(f'{folder.name}-01234567').mkdir()
  assert evaluations.candidates(folder) == [(folder, _RESULTS)]


@pytest.mark.parametrize('limit', (0, 5))
def test_one_process_at_a_time_evaluates_into_a_folder(tmp_path, limit):
  """The same evaluation twice, or two whose folders have the same name."""
  folder, other = _folder(tmp_path), {**_RESULTS, 'limit': limit}
  for kwargs in ({}, {'out': tmp_path / 'mine'}):
    with evaluations.opened(folder, _RESULTS, **kwargs) as found:
      with pytest.raises(errors.BusyError, match='wait for it, or choose'):
        _choose(folder, other, **kwargs)
      evaluations.write(found, _RESULTS, [{'nodule_id': 'n'}])
    # Only the results are left.
    assert {x.name for x in found.iterdir()} == {'metrics.json', 'records.csv'}
  # Repeating an evaluation does not block another one.
  with evaluations.opened(folder, _RESULTS):
    assert _choose(folder, {**_RESULTS, 'limit': 7}) != folder


@pytest.mark.parametrize('name', ('records.csv', 'config.json'))
@pytest.mark.parametrize('when', ('before', 'meanwhile'))
def test_the_user_s_files_are_not_overwritten(tmp_path, name, when):
  folder, out = _folder(tmp_path), tmp_path / 'mine'
  out.mkdir()
  if when == 'before':
    (out / name).write_text('mine')
  with pytest.raises(errors.InputError, match=f'mine has a {name}, but no'):
    with evaluations.opened(folder, _RESULTS, out=out) as found:
      assert when == 'meanwhile'
      (out / name).write_text('mine')
      evaluations.write(found, _RESULTS, [{'nodule_id': 'n'}])
  assert [x.name for x in out.iterdir()] == [name]
  assert (out / name).read_text() == 'mine'


@pytest.mark.parametrize('name', ('records.csv', 'metrics.json'))
def test_a_broken_link_is_not_replaced(tmp_path, name):
  (tmp_path / name).symlink_to('not_mounted')
  with pytest.raises(errors.InputError, match='choose another --out'):
    _choose(_folder(tmp_path), _RESULTS, out=tmp_path)
  assert (tmp_path / name).is_symlink()


def test_half_an_evaluation_of_an_earlier_version_is_no_result(tmp_path):
  folder = _folder(tmp_path)
  folder.mkdir(parents=True)
  (folder / 'records.csv').write_text('half')
  assert evaluations.candidates(folder) == []
  with evaluations.opened(folder, _RESULTS) as found:
    assert found.name.startswith(f'{folder.name}-')
    evaluations.write(found, _RESULTS, [{'nodule_id': 'n'}])
  assert evaluations.candidates(folder) == [(found, _RESULTS)]
  assert (folder / 'records.csv').read_text() == 'half'
  # A metrics.json without a records.csv is no result, either.
  (found / 'records.csv').unlink()
  assert evaluations.candidates(folder) == []


@pytest.mark.parametrize('reader', ('bundle', 'evaluate'))
@pytest.mark.parametrize('after', range(8))
def test_an_evaluation_that_is_killed_leaves_the_old_or_the_new(
  tmp_path, monkeypatch, reader, after
):
  folder = _folder(tmp_path)
  versions = [{**_RESULTS, 'test': number} for number in range(2)]
  left, replace = None, os.replace

  def dying(*args):
    nonlocal left
    if left is not None:
      if left == 0:
        raise OSError(5, 'Input/output error')
      left -= 1
    replace(*args)

  monkeypatch.setattr(os, 'replace', dying)
  for results, left in zip(versions, (None, after), strict=True):
    with evaluations.opened(folder, results) as found:
      assert found == folder
      try:
        evaluations.write(folder, results, [{'of': results['test']}])
      except errors.InputError:
        assert left == 0
  left = None
  if reader == 'evaluate':
    assert _choose(folder, _RESULTS) == folder
  ((_, results),) = evaluations.candidates(folder)
  # Two renames write new files, two move old ones out, one commits, and two
  # move the new ones in.
  assert results == versions[after >= 5]
  of = f'of\n{results["test"]}\n'
  assert (folder / 'records.csv').read_text() == of
  if after < 5 or reader == 'evaluate':
    assert len(list(folder.iterdir())) == 2


def test_the_next_evaluation_removes_leftovers(tmp_path):
  folder = _folder(tmp_path)
  others = [folder.with_name('another'), folder]
  for path in others:
    path.mkdir(parents=True)
    (path / '.records.csv.mtnet_jax-0123456789abcdef').touch()
    (path / '.notes').touch()
  _choose(folder, _RESULTS)
  out = tmp_path / 'mine'
  out.mkdir()
  (out / '.metrics.json.mtnet_jax-0123456789abcdef').touch()
  _choose(folder, _RESULTS, out=out)
  assert [[x.name for x in path.iterdir()] for path in (*others, out)] == [
    ['.notes'],
    ['.notes'],
    [],
  ]


def test_half_a_replacement_that_is_read_only_is_no_result(
  tmp_path, monkeypatch
):
  folder = _folder(tmp_path)
  _write(folder.with_name(f'{folder.name}-01234567'), _RESULTS)
  (folder / '.metrics.json.mtnet_jax-0123456789abcdef').mkdir(parents=True)
  (folder / 'records.csv').touch()

  def read_only(folder):
    raise errors.InputError(f'{folder} cannot be locked')

  monkeypatch.setattr(evaluations.together, 'one_writer', read_only)
  ((found, _),) = evaluations.candidates(folder)
  assert found != folder
