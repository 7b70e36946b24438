"""The page of a sweep is complete, and all its claims have intervals."""

import csv
import functools
import re
import types

import made_records
import project_configs
import pytest

from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import finished_run
from mtnet_jax.experiments import sweep_figures
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.experiments import sweep_report
from mtnet_jax.experiments import sweep_runs
from mtnet_jax.system import errors

_KINDS = (
  'table4',
  'table5',
  'figure7',
  'figure8',
  'rank_loss',
  'image_size',
  'leakage',
  'folds',
)


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch):
  few = functools.partial(bootstrap.patient_weights, replicates=50)
  monkeypatch.setattr(bootstrap, 'patient_weights', few)


def records_of(name, index):
  """Returns records of a point; each point is better than the last by 2 %.

  The nodules differ between points if the points have different test sets.
  """
  records = made_records.make_records(shift=index / 50, first=index % 3)
  differ = name in ('leakage', 'folds')
  return [
    {**record, 'nodule_id': f'{index * differ}-{record["nodule_id"]}'}
    for record in records
  ]


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Function (name, ...): writes the report of a sweep of made-up runs."""

  def write(name, test_folds=(), **results):
    config = project_configs.ABLATIONS.get_config(f'{name},test')
    with config.unlocked():
      if test_folds is None:
        del config.test_folds
      else:
        config.test_folds = test_folds
    plan = sweep_plan.points(config)
    runs = {}
    for index, point in enumerate(plan):
      records = records_of(name, index)
      for record in records if test_folds else ():
        record['nodule_id'] += f'-{point.fold}'
        record['patient_id'] += f'-{point.fold}'
      if 'class' not in config.base.stages:
        for record in records:
          del record['malignancy_probability']
      runs[tmp_path / point.folder] = types.SimpleNamespace(
        records=records,
        results={
          'simulated': True,
          'dataset': 'lidc_nodules/phantom',
          'hardware': {'devices': 1, 'kind': 'cpu', 'platform': 'cpu'},
          'versions': {'jax': f'0.{index * results.get("mixed", 0)}'},
          'test': {'nodules': len(records), 'patients': 20},
        },
      )
    monkeypatch.setattr(finished_run, 'read', lambda path: runs[path])
    return sweep_report.write(tmp_path, config, plan)

  return write


@pytest.mark.parametrize('name', _KINDS)
def test_every_kind_has_its_page_table_and_figure(write, tmp_path, name):
  text = write(name)
  page = (tmp_path / 'report' / 'index.html').read_text()
  assert re.search(r'<title>[^<]*SIMULATED CT', page)
  assert '<strong>SIMULATED CT</strong>' in page
  pictures = set(re.findall(r'<img src="([^"]+)"', page))
  assert pictures
  assert all((tmp_path / 'report' / picture).exists() for picture in pictures)
  assert re.search(r'alt="SIMULATED CT', page)
  assert 'nan' not in page and 'None' not in page
  # The page has every line of the output.
  for line in text.splitlines()[1:]:
    assert line.strip() in page
    # Every difference has its interval.
    if re.search(r'than .* by [\d.]+ points|differ from', line):
      assert '95 % interval of the difference' in line
  with open(tmp_path / 'report' / 'results.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  for row in rows:
    assert row['low'] and row['high'], row
    if row.get('difference_value'):
      assert row['difference_low'] and row['difference_high'] and row['verdict']
      assert row['paired'] == str(row['point'] != 'by_nodule')


def test_words_follow_the_interval(write):
  # Every nodule is better by 2 %, so every resample is, too.
  assert (
    'Fine Seg-net, without mask: Jaccard index higher than the'
    ' reference by 2.0 points (95 % interval of the difference +2.0 to +2.0).'
  ) in write('table5')
  # The coarse net is compared with the fine net, and they are equally good.
  text = write('table5')
  assert (
    'Coarse Seg-net: Jaccard index not shown to differ from Fine Seg-net'
  ) in text
  # Figure 7 has 19 points besides the reference.
  assert 'Of the 19 others' in write('figure7')


def test_a_config_without_the_field_test_folds_is_accepted(write, tmp_path):
  write('table4', test_folds=None)
  assert (tmp_path / 'report' / 'index.html').exists()


def test_leakage_says_that_the_test_nodules_differ(write):
  assert write('leakage').count(', on other test nodules.') == 3


def test_folds_are_pooled_over_all_nodules(write, tmp_path):
  text = write('folds')
  assert 'over all 200 nodules' in text
  assert 'standard deviation' in text and 'reference' not in text
  html = (tmp_path / 'report' / 'index.html').read_text()
  assert 'mtnet_jax.evaluate --workdir' in html


def test_test_folds_are_pooled_and_paired(write, tmp_path):
  text = write('table5', test_folds=(0, 4))
  # The four runs have indices 0 to 3, and each index adds 2 %. Those of the
  # second point are 2 and 3, those of the reference 0 and 1.
  assert (
    'Fine Seg-net, without mask: Jaccard index higher than the'
    ' reference by 4.0 points (95 % interval of the difference +4.0 to +4.0).'
  ) in text
  html = (tmp_path / 'report' / 'index.html').read_text()
  assert 'for each of 2 test\n  folds' in html
  for point in ('with_mask', 'without_mask'):
    for fold in (0, 4):
      assert f'../{point}/fold{fold}/report/index.html' in html
  with open(tmp_path / 'report' / 'results.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert {row['point'] for row in rows} == {'with_mask', 'without_mask'}
  assert {row['nodules'] for row in rows} == {str(4 * made_records.PATIENTS)}


def test_points_whose_folds_differ_are_paired_where_their_nodules_are_equal(
  write, tmp_path, monkeypatch
):
  """All folds together have the same nodules, however they are split."""

  def same_in_another_order(name, index):
    records = made_records.make_records(shift=index / 50)
    return records if index < 2 else records[::-1]

  monkeypatch.setitem(globals(), 'records_of', same_in_another_order)
  text = write('leakage', test_folds=(0, 4))
  assert 'other test nodules' not in text
  html = (tmp_path / 'report' / 'index.html').read_text()
  assert 'differences are\n  paired' in html


def test_an_interrupted_report_leaves_the_old_one(write, tmp_path, monkeypatch):
  write('table4')
  before = (tmp_path / 'report' / 'index.html').read_text()

  def interrupt(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(sweep_figures, 'rows', interrupt)
  with pytest.raises(KeyboardInterrupt):
    write('table4')
  assert (tmp_path / 'report' / 'index.html').read_text() == before
  assert [path.name for path in tmp_path.iterdir()] == ['report']


def test_runs_of_several_versions_are_refused(write, tmp_path):
  with pytest.raises(errors.InputError, match='differ in.*version of jax'):
    write('table4', mixed=1)
  assert not (tmp_path / 'report').exists()


@pytest.mark.parametrize(
  ('name', 'reference'), (('table4', 'with_mask'), ('figure8', None))
)
def test_a_sweep_prints_the_command_for_the_papers_tables(
  tmp_path, monkeypatch, capsys, name, reference
):
  monkeypatch.setattr(sweep_runs, '_train', lambda *_: None)
  monkeypatch.setattr(sweep_runs, '_is_finished', lambda *_: True)
  monkeypatch.setattr(sweep_report, 'write', lambda *_: 'What it found')
  directory = tmp_path / name
  config = project_configs.ABLATIONS.get_config(f'{name},test')
  sweep_runs.run(config, directory)
  lines = capsys.readouterr().out.splitlines()
  found = [line for line in lines if line.startswith('To add these results')]
  assert found == (
    [
      "To add these results to the paper's tables: python -m mtnet_jax.report"
      f' --workdir={directory}/{reference} --compare={directory}'
    ]
    if reference
    else []
  )
