"""The command that rewrites the report of a finished run."""

import csv
import shutil
import sys

import made_run
import numpy as np
import pytest

from mtnet_jax import report
from mtnet_jax.data import lidc
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import outputs as outputs_lib
from mtnet_jax.evaluation import records
from mtnet_jax.system import errors

_SPLITS = ('train', 'validation', 'test')


@pytest.fixture(scope='module', name='finished')
def _finished(tmp_path_factory, phantom_data_dir):
  """A run of tiny random networks, tested on twelve phantoms."""
  path = tmp_path_factory.mktemp('report') / 'run'
  config = made_run.config_of()
  splits = {
    name: lidc.load_split(
      'lidc_nodules/phantom', name, data_dir=phantom_data_dir, limit=12
    )
    for name in _SPLITS
  }
  with config.unlocked():
    config.dataset.data_dir = str(phantom_data_dir)
    config.dataset.limit = 12
    config.dataset.fingerprint = nodules_lib.fingerprint(splits)
  variables = made_run.draw_variables(config)
  outputs = outputs_lib.predict(
    config, variables, splits['test'], progress=iter
  )
  made_run.write(
    path, config, rows=records.make_records(splits['test'], outputs)
  )
  return path


@pytest.fixture(name='run_dir')
def _run_dir(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / 'run')


def test_the_command_rewrites_the_report(run_dir, monkeypatch, capsys):
  before = (run_dir / 'metrics.json').read_bytes()
  monkeypatch.setattr(sys, 'argv', ['report', f'--workdir={run_dir}'])
  report.main()
  page = run_dir / 'report' / 'index.html'
  assert capsys.readouterr().out == f'Report: {page}\n'
  html = page.read_text(encoding='utf-8')
  for words in ('SIMULATED', 'LIDC-IDRI-', 'Readers with each other'):
    assert words in html
  # The counts of the splits are added from the dataset.
  cohort = (run_dir / 'report' / 'cohort.csv').read_text().splitlines()
  assert [row.split(',')[0] for row in cohort] == ['row', *_SPLITS]
  assert (run_dir / 'metrics.json').read_bytes() == before
  assert {path.name for path in run_dir.iterdir()} == {
    'config.json',
    'metrics.json',
    'records.csv',
    'train_log.csv',
    'checkpoints',
    'report',
  }


def test_a_sweep_without_rows_in_the_paper_s_tables_is_noted(
  run_dir, monkeypatch, capsys
):
  sweep = run_dir.parent / 'folds-test'
  made_run.write_results(sweep / 'fold0')
  flags = [f'--workdir={run_dir}', f'--compare={sweep}']
  monkeypatch.setattr(sys, 'argv', ['report', *flags])
  report.main()
  note, written = capsys.readouterr().out.splitlines()
  assert note.startswith(f"note: {sweep} has no row in the paper's tables")
  page = run_dir / 'report' / 'index.html'
  assert written == f'Report: {page}'
  # Rows "not run" have commands with the variant and the nodules of this run.
  with open(run_dir / 'report' / 'table4.csv', newline='') as file:
    (command,) = (
      row['command'] for row in csv.DictReader(file) if row['command']
    )
  train, show = command.split(' && ')
  assert train.startswith(
    'python -m mtnet_jax.sweep --config=configs/baselines.py:tables,test'
  )
  assert '--config.base.dataset.limit=12' in train
  assert show == (
    f'python -m mtnet_jax.report --workdir={run_dir} --compare=runs/tables-test'
  )


def test_networks_of_another_run_are_refused(run_dir):
  shutil.rmtree(run_dir / 'checkpoints')
  other = made_run.write(
    run_dir.parent / 'other', made_run.config_of(), seed=11
  )
  shutil.copytree(other / 'checkpoints', run_dir / 'checkpoints')
  with pytest.raises(
    errors.InputError, match='several runs: its networks give'
  ):
    report.write_again(run_dir)
  assert not (run_dir / 'report').exists()


def test_a_run_without_networks_is_refused(run_dir):
  shutil.rmtree(run_dir / 'checkpoints')
  with pytest.raises(errors.InputError, match='has no checkpoint'):
    report.write_again(run_dir)


def test_another_dataset_is_refused(run_dir, monkeypatch):
  real = lidc.load_split

  def inverted(*args, **kwargs):
    nodules = real(*args, **kwargs)
    np.negative(nodules.image, out=nodules.image)
    return nodules

  monkeypatch.setattr(lidc, 'load_split', inverted)
  with pytest.raises(errors.InputError, match='its nodules differ'):
    report.write_again(run_dir)


def test_a_missing_dataset_is_refused(run_dir, tmp_path):
  with pytest.raises(errors.InputError, match='is not in'):
    report.write_again(run_dir, data_dir=str(tmp_path / 'nowhere'))


def test_records_of_other_nodules_are_refused(run_dir):
  run = finished_run.read(run_dir)
  run.records[0]['nodule_id'] = 'somebody_else_1'
  made_run.write_results(run_dir, run.config, run.records)
  with pytest.raises(errors.InputError, match='are not those of the test'):
    report.write_again(run_dir)


def test_an_incomplete_run_is_refused(run_dir):
  (run_dir / 'records.csv').unlink()
  with pytest.raises(errors.InputError, match='records.csv.*incomplete'):
    report.write_again(run_dir)


@pytest.mark.parametrize('when', ('computes', 'draws'))
@pytest.mark.parametrize('what', ('gone', 'another'))
def test_the_report_of_another_run_stays(run_dir, monkeypatch, when, what):
  """The run is moved meanwhile, and another one may take its place."""
  owner, name = (report.examples, 'choose')
  if when == 'draws':
    owner, name = (report.page_lib, '_add_training')
  real = getattr(owner, name)

  def meanwhile(*args, **kwargs):
    if what == 'another':
      shutil.copytree(run_dir, run_dir.with_name('other'))
      shutil.rmtree(run_dir.with_name('other') / 'report', ignore_errors=True)
    run_dir.rename(run_dir.with_name('moved'))
    if what == 'another':
      run_dir.with_name('other').rename(run_dir)
      (run_dir / 'report').mkdir()
      (run_dir / 'report' / 'index.html').write_text('with notes')
    return real(*args, **kwargs)

  monkeypatch.setattr(owner, name, meanwhile)
  with pytest.raises(errors.InputError):
    report.write_again(run_dir)
  if what == 'another':
    (page,) = (run_dir / 'report').iterdir()
    assert page.read_text() == 'with notes'
  else:
    assert not run_dir.exists()
