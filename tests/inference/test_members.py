"""Which runs can be averaged, and which patients they have seen."""

import json
import pathlib
import shutil

import made_run
import numpy as np
import pytest

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import outputs
from mtnet_jax.inference import members
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors
from tfds_lidc.nodules import selection


@pytest.fixture(name='write')
def _write(tmp_path):
  def write(name, **changes):
    config = made_run.config_of()
    with config.unlocked():
      config.update_from_flattened_dict(changes)
    return str(made_run.write_results(tmp_path / name, config))

  return write


def test_runs_may_differ_in_seed_and_fold(write):
  paths = [
    write('a'),
    write('b', seed=7),
    write('c', **{'dataset.rotate_folds': 2, 'seg_net.exit_width': 8}),
  ]
  runs = members.read(paths)
  described = members.described(runs)
  assert [run['rotate_folds'] for run in described] == [0, 0, 2]
  assert described[1] == {
    'workdir': paths[1],
    'id': workdir.run_id(paths[1]),
    'seed': 7,
    'rotate_folds': 0,
  }


@pytest.mark.parametrize(
  'changes, reason',
  (
    ({'strategy': 'cam'}, 'its strategy is cam, not mtnet'),
    ({'stages': ('coarse',)}, r"its stages is \('coarse',\), not"),
    ({'image_size': 32}, 'its size is 32, not 64'),
    ({'window': (-900.0, 400.0)}, r'its window is \(-900.0, 400.0\), not'),
    ({'coarse_mask': 'soft'}, 'its coarse_mask is soft, not hard'),
    (
      {'dataset.name': 'lidc_nodules/paper'},
      'its dataset is lidc_nodules/paper, not lidc_nodules/phantom',
    ),
  ),
)
def test_runs_of_another_method_are_refused(write, changes, reason):
  first, other = write('first'), write('other', **changes)
  with pytest.raises(
    errors.InputError,
    match=f'{other} cannot be averaged with {first}: {reason}',
  ):
    members.read([first, other])


def test_a_run_that_is_listed_twice_is_refused(write):
  first, other = write('a'), write('b')
  with pytest.raises(errors.InputError, match='is listed twice'):
    members.read([first, other, f'{first}/.'])


def test_a_run_keeps_its_id_when_it_is_moved(write, tmp_path):
  first, other = write('a'), write('b', seed=1)
  moved = shutil.copytree(first, tmp_path / 'moved')
  assert workdir.run_id(moved) == workdir.run_id(first)
  assert len(workdir.run_id(first)) == 16
  assert workdir.run_id(other) != workdir.run_id(first)


def _write_list(path, *rows):
  """Writes the seen.csv of a run, and returns its path."""
  seen_lib.write(
    pathlib.Path(path, seen_lib.FILE), seen_lib.Seen(frozenset(rows))
  )
  return path


def test_patients_are_compared_by_the_lists_of_all_runs(write):
  first = _write_list(
    write('a'), ('p1_1', 'p1', 'train'), ('p2_1', 'p2', 'train')
  )
  other = _write_list(
    write('b', seed=1),
    ('p2_1', 'p2', 'validation'),
    ('p3_1', 'p3', 'validation'),
  )
  patients = ['p1', 'p2', 'p3', 'p4', 'p2']
  for paths, used in (
    ([first], ['train', 'train', '', '', 'train']),
    ([other], ['', 'validation', 'validation', '', 'validation']),
    ([other, first], ['train', 'train', 'validation', '', 'train']),
  ):
    runs = members.read(paths)
    found = members.used_for(runs, patients)
    assert found.tolist() == used
    assert members.note_by_fold(runs) == ''
  assert members.seen_counts(runs, found) == {
    'compared_by': 'id',
    'nodules_of_patients_trained_on': 3,
    'nodules_of_patients_chosen_by': 1,
  }
  assert members.caution(runs, found) == (
    'CAUTION: 4 of these 5 nodules belong to patients used in training (3) or'
    ' model selection (1)\nof at least one of the runs; the metrics are too'
    ' optimistic.'
  )
  alone = members.caution(runs[:1], np.array(['train', '']))
  assert '1 of these 2 nodules' in alone and '\nof the run;' in alone
  assert members.caution(runs, np.array(['', ''])) == ''


def test_a_run_without_a_list_has_seen_its_folds(write):
  """The folds are those of nodules.csv, where each patient has one."""
  with_list = _write_list(write('a'), ('x', 'LIDC-IDRI-9999', 'train'))
  first = write('b', seed=1)
  turned = write('c', seed=2, **{'dataset.rotate_folds': 1})
  patients = {n.fold: n.patient_id for n in selection.clusters()}
  patients = [patients[fold] for fold in range(5)]
  for paths, used in (
    ([first], ['train'] * 3 + ['validation', '']),
    ([turned], ['', 'train', 'train', 'train', 'validation']),
    ([with_list, first], ['train'] * 3 + ['validation', '']),
    ([first, turned], ['train'] * 4 + ['validation']),
    ([with_list], [''] * 5),
  ):
    runs = members.read(paths)
    found = members.used_for(runs, patients)
    assert found.tolist() == used
    lacking = [path for path in paths if path != with_list]
    note = members.note_by_fold(runs)
    assert note.startswith(', '.join(lacking)) and bool(note) == bool(lacking)
    assert members.seen_counts(runs, found)['compared_by'] == (
      'fold' if lacking else 'id'
    )
    assert (with_list in note) is False


def test_a_damaged_list_is_refused(write):
  path = write('a')
  pathlib.Path(path, seen_lib.FILE).write_text('nothing')
  with pytest.raises(errors.InputError, match='seen.csv is damaged'):
    members.read([path])


def _set(path, key, value):
  """Sets a dotted key of a JSON file; the value `...` removes it."""
  tree = json.loads(path.read_text())
  *groups, leaf = key.split('.')
  parent = tree
  for group in groups:
    parent = parent[group]
  parent.pop(leaf, None)
  if value is not ...:
    parent[leaf] = value
  path.write_text(json.dumps(tree))


@pytest.mark.parametrize(
  'name, key, value',
  (
    ('config.json', 'window', ...),
    ('config.json', 'window', ['a', 'b']),
    ('config.json', 'window', [400, -1000]),
    ('config.json', 'dataset.data_dir', ...),
    ('config.json', 'dataset.data_dir', 5),
    ('config.json', 'dataset.data_dir', ['a']),
    ('config.json', 'dataset.name', ...),
    ('config.json', 'dataset.name', 5),
    ('config.json', 'dataset.rotate_folds', 'x'),
    ('config.json', 'eval_batch_size', ...),
    ('config.json', 'strategy', 'zzz'),
    ('config.json', 'dtype', 'zz'),
    ('config.json', 'stages', 5),
    ('config.json', 'seg_net.zz', 1),
    ('config.json', 'seed', -1),
    ('metrics.json', 'dataset', ...),
    ('metrics.json', 'diameter_only_model', None),
    ('metrics.json', 'diameter_only_model', {'slope': 'b', 'intercept': 0}),
  ),
)
def test_odd_values_of_a_run_are_refused_in_one_line(write, name, key, value):
  path = write('a')
  _set(pathlib.Path(path, name), key, value)
  message = f'{path}(/config.json[. ]| is damaged, or of)'
  with pytest.raises(errors.InputError, match=message) as error:
    members.read([path])
  assert '\n' not in str(error.value)


def test_errors_of_networks_about_odd_values_name_the_run(write, monkeypatch):
  (run,) = members.read([write('a')])

  def fail(*_, **__):
    raise TypeError('of a tracer')

  monkeypatch.setattr(outputs, 'predict', fail)
  monkeypatch.setattr(workdir, 'load_variables', lambda *_: {})
  image = np.zeros((1, 4, 4), np.int16)
  label = np.zeros(1, np.int32)
  nodules = nodules_lib.Nodules(image, image, image, label, {}, True)
  with pytest.raises(
    errors.InputError, match=f'{run.path} is damaged.*TypeError, of a tracer'
  ):
    members.predict(
      [run], nodules, symmetries=False, progress=lambda title: iter
    )
