"""Comparisons of runs: their names, paired differences, refused runs."""

import re

import made_run
import numpy as np
import project_configs
import pytest

from mtnet_jax.evaluation import comparisons
from mtnet_jax.evaluation import finished_run
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.reports import paper_tables
from mtnet_jax.reports import tables
from mtnet_jax.system import errors


def _config(**changes):
  config = made_run.config_of()
  with config.unlocked():
    config.update(changes)
  return config


@pytest.fixture(scope='module', name='folder')
def _folder(tmp_path_factory):
  """MT-Net and a sweep over the coarse mask, which is worse without it."""
  folder = tmp_path_factory.mktemp('runs')
  made_run.write_results(folder / 'mtnet')
  rows = made_run.records()
  for row in rows:
    row['fine_dice'] = row['fine_dice'] - 0.25
    row['malignancy_probability'] = 1 - row['malignancy_probability']
  made_run.write_results(folder / 'sweep' / 'with_mask')
  made_run.write_results(
    folder / 'sweep' / 'without_mask', _config(coarse_mask='none'), rows
  )
  return folder


@pytest.fixture(scope='module', name='run')
def _run(folder):
  return finished_run.read(folder / 'mtnet')


@pytest.mark.parametrize(
  'changes, names',
  (
    ({}, []),
    ({'strategy': 'shared'}, ['shared']),
    ({'coarse_mask': 'soft'}, []),
    ({'coarse_mask': 'none', 'stages': ('coarse',)}, []),
    (
      {'coarse_mask': 'none', 'stages': ('coarse', 'class')},
      ['class_without_mask'],
    ),
    (
      {'coarse_mask': 'none', 'stages': ('coarse', 'fine')},
      ['fine_without_mask'],
    ),
    ({'coarse_mask': 'none'}, ['class_without_mask', 'fine_without_mask']),
  ),
)
def test_names(changes, names):
  assert comparisons.names_of(_config(**changes)) == names


def test_differences_are_paired(folder, run):
  found = comparisons.read([folder / 'sweep'], run)
  assert set(found) == {'class_without_mask', 'fine_without_mask'}
  compared = found['fine_without_mask']
  dice = np.array([row['fine_dice'] for row in run.records])
  assert compared.segmentation['dice']['value'] == pytest.approx(
    dice.mean() - 0.25
  )
  # The same for every nodule: the interval has no width.
  assert compared.segmentation_difference['dice'] == {
    'value': pytest.approx(0.25),
    'ci95': pytest.approx([0.25, 0.25]),
  }
  assert compared.segmentation_difference['jaccard']['value'] == 0
  ours = run.results['test']['classification']['auc']['value']
  assert compared.classification['auc']['value'] == pytest.approx(1 - ours)
  assert compared.classification_difference['auc']['value'] == (
    pytest.approx(2 * ours - 1)
  )


def test_a_difference_of_areas_is_resampled_together():
  rows = made_run.records()
  compared = comparisons.compare(rows, rows, seed=0)
  assert compared.classification_difference['auc'] == {
    'value': 0.0,
    'ci95': [0.0, 0.0],
  }


def test_what_a_run_lacks_is_not_compared():
  rows = made_run.records()
  bare = [
    {key: x for key, x in row.items() if key != 'malignancy_probability'}
    for row in rows
  ]
  compared = comparisons.compare(rows, bare, seed=0)
  assert compared.classification is None
  assert compared.classification_difference is None
  turned = comparisons.compare(bare, rows, seed=0)
  assert turned.classification['auc']['value'] is not None
  assert turned.classification_difference is None


def test_comparisons_fill_the_rows_of_the_papers_tables(folder, run):
  found = comparisons.read([folder / 'sweep' / 'without_mask'], run)
  *_, table4, table5 = paper_tables.make(run.results['test'], found)
  rows = {row.title: row for row in table4.rows}
  assert 'missing' not in {row.kind for row in table4.rows + table5.rows}
  assert rows['Without, here'].kind == 'nodules'
  change = rows['MT-Net - Without, here']
  assert change.kind == 'difference'
  rows = {row.title: row for row in table5.rows}
  change = rows['MT-Net - Fine without mask, here']
  assert tables.texts(table5, change)[0] == '+25.0 (+25.0 to +25.0)'


def test_other_strategies_have_rows_of_their_own(run):
  compared = comparisons.compare(run.records, run.records, seed=0)
  table1, table2, *_ = paper_tables.make(
    run.results['test'], {'shared': compared, 'cam': compared}
  )
  assert {'shared, here', 'cam, here'} <= {row.title for row in table1.rows}
  missing = [row.title for row in table1.rows if row.kind == 'missing']
  assert missing == ['feedback, here', 'serial, here', 'single, here']
  assert [row.title for row in table2.rows if row.kind == 'missing'] == [
    'feedback, serial, single, here'
  ]


def test_a_path_without_runs_is_refused(folder, run):
  with pytest.raises(errors.InputError, match='nowhere holds nothing to comp'):
    comparisons.read([folder / 'nowhere'], run)


def test_runs_without_a_row_are_named_and_left_out(folder, run):
  lines = []
  found = comparisons.read(
    [folder / 'mtnet', folder / 'sweep', folder], run, say=lines.append
  )
  assert set(found) == {'class_without_mask', 'fine_without_mask'}
  assert lines == [
    f"note: {path} has no row in the paper's tables; the sweeps with rows are"
    ' table1, tables, variants of configs/baselines.py and table4, table5 of'
    ' configs/ablations.py.'
    # The folder itself contains a run, but no points of a sweep.
    for path in (folder / 'mtnet', folder)
  ]


def test_the_listed_sweeps_are_those_with_rows():
  """According to the configs of their points."""
  with_rows = {}
  for file, module in (
    ('baselines.py', project_configs.BASELINES),
    ('ablations.py', project_configs.ABLATIONS),
  ):
    with_rows[file] = tuple(
      sweep
      for sweep in module._SWEEPS
      if any(
        comparisons.names_of(point.config)
        for point in sweep_plan.points(module.get_config(f'{sweep},test'))
      )
    )
  assert with_rows == comparisons.SWEEPS


def test_the_sweep_tables_fills_every_row(run):
  """Missing rows of the report name this sweep."""
  plan = sweep_plan.points(project_configs.BASELINES.get_config('tables,test'))
  names = {x for point in plan for x in comparisons.names_of(point.config)}
  compared = comparisons.compare(run.records, run.records, seed=0)
  for table in paper_tables.make(
    run.results['test'], dict.fromkeys(names, compared)
  ):
    assert 'missing' not in {row.kind for row in table.rows}


def test_the_runs_own_fold_of_a_point_is_compared(tmp_path, run):
  sweep = tmp_path / 'tables-test'
  for fold in (0, 4):
    # The run tests fold 4, for which nothing is rotated.
    config = _config(
      coarse_mask='none', dataset={'rotate_folds': (fold + 1) % 5}
    )
    made_run.write_results(sweep / 'without_mask' / f'fold{fold}', config)
    made_run.write_results(sweep / 'mtnet' / f'fold{fold}')
  for path in (sweep, sweep / 'without_mask'):
    found = comparisons.read([path], run)
    assert set(found) == {'class_without_mask', 'fine_without_mask'}
  with pytest.raises(errors.InputError, match='none of its runs was tested on'):
    comparisons.read([sweep / 'without_mask' / 'fold0'], run)


def test_two_runs_of_one_comparison_are_refused(folder, run):
  path = folder / 'sweep' / 'without_mask'
  with pytest.raises(errors.InputError, match='second run of class_without'):
    comparisons.read([path, path], run)


@pytest.mark.parametrize(
  'changes, what',
  (
    ({'variant': 'demo'}, 'variant'),
    ({'dataset': {'fingerprint': 'another'}}, 'nodules'),
    ({'dataset': {'name': 'lidc_nodules/all'}}, 'dataset'),
  ),
)
def test_runs_on_other_nodules_are_refused(tmp_path, run, changes, what):
  config = _config(coarse_mask='none', **changes)
  made_run.write_results(tmp_path / 'other', config)
  with pytest.raises(errors.InputError, match=f'differ in their {what}'):
    comparisons.read([tmp_path / 'other'], run)


def test_runs_with_other_test_nodules_are_refused(tmp_path, run):
  rows = made_run.records()
  rows[0]['nodule_id'] = 'another'
  made_run.write_results(tmp_path / 'other', _config(coarse_mask='none'), rows)
  with pytest.raises(errors.InputError, match='differ in their test nodules'):
    comparisons.read([tmp_path / 'other'], run)


def test_an_unfinished_run_is_refused(tmp_path, run):
  path = tmp_path / 'sweep' / 'point'
  made_run.write_results(path, _config(coarse_mask='none'))
  (path / 'metrics.json').unlink()
  message = re.escape(f'{path} is not finished')
  with pytest.raises(errors.InputError, match=message):
    comparisons.read([tmp_path / 'sweep'], run)
