"""A run directory is read completely, or refused with the reason."""

import json
import shutil

import made_run
import numpy as np
import pytest

import mtnet_jax
from mtnet_jax.evaluation import finished_run
from mtnet_jax.system import errors


@pytest.fixture(scope='module', name='whole')
def _whole(tmp_path_factory):
  return made_run.write_results(tmp_path_factory.mktemp('results') / 'run')


@pytest.fixture(name='run_dir')
def _run_dir(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'run')


def _change(path, **changes):
  tree = json.loads(path.read_text())
  for key, value in changes.items():
    *groups, leaf = key.split('__')
    group = tree
    for name in groups:
      group = group[name]
    group[leaf] = value
  path.write_text(json.dumps(tree))


def _edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


def test_what_was_written_is_read_back(whole):
  run = finished_run.read(whole)
  records = made_run.records()
  assert len(run.records) == len(records)
  for found, written in zip(run.records, records, strict=True):
    for key, value in written.items():
      assert found[key] == value and type(found[key]) is type(value), key
  assert list(run.histories) == ['coarse', 'class', 'fine']
  row = run.histories['class'][1]
  assert row['epoch'] == 2 and row['best'] is True
  assert row['val_auc'] == 0.75
  assert 'val_jaccard' not in row


def test_columns_of_earlier_versions_get_their_current_names(whole, run_dir):
  records = made_run.records()
  path = run_dir / 'records.csv'
  header, *rows = path.read_text().splitlines()
  means = [1.5 + i / 2 for i in range(len(rows))]
  lines = [f'{header},malignancy']
  lines += [f'{row},{mean}' for row, mean in zip(rows, means, strict=True)]
  path.write_text('\n'.join(lines) + '\n')
  found = finished_run.read(run_dir).records
  assert [row['malignancy_rating_mean'] for row in found] == means
  for row, written in zip(found, records, strict=True):
    assert row.keys() - written.keys() == {'malignancy_rating_mean'}
    assert row['malignancy_probability'] == written['malignancy_probability']


def test_an_identifier_stays_text(run_dir):
  _edit(run_dir / 'records.csv', 'nodule-0', '1e5')
  assert finished_run.read(run_dir).records[0]['nodule_id'] == '1e5'


@pytest.mark.parametrize(
  'name', ('config.json', 'metrics.json', 'records.csv', 'train_log.csv')
)
def test_a_missing_file_is_named(run_dir, name):
  (run_dir / name).unlink()
  with pytest.raises(errors.InputError, match=name):
    finished_run.read(run_dir)


def test_runs_of_this_version_and_of_the_one_before_are_read(run_dir):
  for version in ('0.1.0', mtnet_jax.__version__):
    _change(run_dir / 'metrics.json', versions__mtnet_jax=version)
    read = finished_run.read(run_dir)
    assert read.results['versions']['mtnet_jax'] == version


def test_a_run_of_another_version_is_refused(run_dir):
  _change(run_dir / 'metrics.json', versions__mtnet_jax='0.0.1')
  with pytest.raises(
    errors.InputError, match='by mtnet_jax 0.0.1, but this is'
  ):
    finished_run.read(run_dir)


@pytest.mark.parametrize(
  'change',
  (
    {'seed': 5},
    {'dataset': 'lidc_nodules/paper'},
    {'variant': 'demo'},
    {'simulated': False},
    {'test__nodules': 7},
    {'test__segmentation__fine__dice__value': 0.123},
    {'test__classification__auc__ci95': [0.1, 0.2]},
  ),
)
def test_metrics_of_another_run_are_refused(run_dir, change):
  _change(run_dir / 'metrics.json', **change)
  with pytest.raises(errors.InputError, match='mixed up'):
    finished_run.read(run_dir)


def test_records_of_another_run_are_refused(run_dir):
  lines = (run_dir / 'records.csv').read_text().splitlines(keepends=True)
  (run_dir / 'records.csv').write_text(''.join(lines[:-1]))
  with pytest.raises(errors.InputError, match='mixed up'):
    finished_run.read(run_dir)


def test_a_truncated_file_is_damaged(run_dir):
  text = (run_dir / 'records.csv').read_text()
  (run_dir / 'records.csv').write_text(text[: -len(text) // 3])
  with pytest.raises(errors.InputError, match='records.csv is damaged'):
    finished_run.read(run_dir)


@pytest.mark.parametrize('text', ('', 'a,b\n', '\x00'))
def test_a_file_that_is_not_a_table_is_damaged(run_dir, text):
  (run_dir / 'records.csv').write_text(text)
  with pytest.raises(errors.InputError, match='records.csv is damaged'):
    finished_run.read(run_dir)


def test_a_table_of_other_columns_is_damaged(run_dir):
  _edit(run_dir / 'records.csv', 'patient_id', 'who')
  with pytest.raises(errors.InputError, match='records.csv is damaged, or of'):
    finished_run.read(run_dir)


def test_a_log_that_ends_early_is_incomplete(run_dir):
  lines = (run_dir / 'train_log.csv').read_text().splitlines(keepends=True)
  (run_dir / 'train_log.csv').write_text(''.join(lines[:-1]))
  message = '1 of 2 epochs of the fine'
  with pytest.raises(errors.InputError, match=message):
    finished_run.read(run_dir)


def test_missing_values_are_none(run_dir):
  # The first nodule had a single reader.
  run = finished_run.read(run_dir)
  assert run.records[0]['reader_dice'] is None
  assert np.isfinite(run.records[1]['reader_dice'])


@pytest.mark.parametrize(
  ('name', 'key', 'value'),
  [
    ('metrics.json', 'versions', 3),
    ('metrics.json', 'simulated', [True]),
    ('metrics.json', 'test', 'x'),
    ('metrics.json', 'diameter_only_model', None),
    ('config.json', 'dataset', 'lidc_nodules/phantom'),
    ('config.json', 'stages', 7),
    ('config.json', 'class_net', {'no_such_field': 1}),
  ],
)
def test_values_of_another_type_are_damage(run_dir, name, key, value):
  path = run_dir / name
  tree = json.loads(path.read_text())
  assert key in tree
  path.write_text(json.dumps({**tree, key: value}))
  with pytest.raises(errors.InputError, match='damaged'):
    finished_run.read(run_dir)


def test_deeply_nested_json_is_damage(run_dir):
  (run_dir / 'metrics.json').write_text('[' * 100_000)
  with pytest.raises(errors.InputError, match='damaged'):
    finished_run.read(run_dir)


@pytest.mark.parametrize(
  'stage', ('zz$\\frac{$', '../../evil', 'z' * 300, 'joint', '')
)
def test_stages_that_the_config_does_not_train_are_refused(run_dir, stage):
  """Their names would become titles and names of files."""
  path = run_dir / 'train_log.csv'
  lines = path.read_text().splitlines()
  _, rest = lines[1].split(',', 1)
  path.write_text('\n'.join([*lines, f'{stage},{rest}']) + '\n')
  with pytest.raises(errors.InputError, match='train_log.csv has 1 stages'):
    finished_run.read(run_dir)
