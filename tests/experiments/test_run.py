"""The main job: its files, its output, and the errors of users it refuses."""

import csv
import dataclasses
import json
import math
import re
import shutil

import main_job
import numpy as np
import project_configs
import pytest
import run_files
import step_job

from mtnet_jax.data import choice
from mtnet_jax.data import lidc
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors

STAGES = ('coarse', 'class', 'fine')


def test_run_directory_is_complete(finished_run):
  workdir, _ = finished_run
  for name in (
    'config.json',
    'metrics.json',
    'records.csv',
    'seen.csv',
    'train_log.csv',
    'report/index.html',
    *(f'tb/{stage}' for stage in STAGES),
    *(f'checkpoints/{stage}' for stage in STAGES),
  ):
    assert (workdir / name).exists(), name


def test_seen_csv_lists_the_training_and_validation_nodules(
  finished_run, phantom_data_dir
):
  """Only those within `dataset.limit`, and none of the test split."""
  workdir, _ = finished_run
  config = json.loads((workdir / 'config.json').read_text())['dataset']
  cohort = json.loads((workdir / 'metrics.json').read_text())['cohort']
  seen = seen_lib.read(workdir / seen_lib.FILE)
  for use in ('train', 'validation'):
    rows = {row[:2] for row in seen.rows if row[2] == use}
    data = lidc.load_split(
      config['name'], use, data_dir=phantom_data_dir, limit=config['limit']
    )
    assert rows == set(
      zip(data.info['nodule_id'], data.info['patient_id'], strict=True)
    )
    assert len(rows) == cohort[use]['nodules'] == config['limit']
    assert len({row[1] for row in rows}) == cohort[use]['patients']


def test_metrics_name_the_dataset_and_the_versions(finished_run):
  workdir, printed = finished_run
  results = json.loads((workdir / 'metrics.json').read_text())
  assert results['dataset'] == 'lidc_nodules/phantom'
  assert results['simulated'] is True
  assert results['versions'].keys() >= {'jax', 'flax', 'mtnet_jax'}
  assert 'SIMULATED' in printed
  test = results['test']
  for tree in (
    test['segmentation']['coarse']['dice'],
    test['segmentation']['fine']['pooled']['jaccard'],
    test['classification']['auc'],
    test['diameter_only']['auc'],
  ):
    low, high = tree['ci95']
    assert 0 <= low <= tree['value'] <= high <= 1


def test_metrics_follow_from_the_records(finished_run):
  workdir, _ = finished_run
  with open(workdir / 'records.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert {row['simulated'] for row in rows} == {'True'}
  results = json.loads((workdir / 'metrics.json').read_text())['test']
  assert len(rows) == results['nodules'] == 32
  for name in ('coarse', 'fine'):
    # Equation (7), from the pixel counts in each row.
    dice = [
      2
      * int(row[f'{name}_overlap'])
      / (int(row[f'{name}_predicted']) + int(row[f'{name}_truth']))
      for row in rows
    ]
    assert results['segmentation'][name]['dice']['value'] == pytest.approx(
      sum(dice) / len(dice)
    )


def test_train_log_has_a_row_per_epoch(finished_run):
  workdir, _ = finished_run
  with open(workdir / 'train_log.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [(row['stage'], row['epoch']) for row in rows] == [
    (stage, epoch) for stage in STAGES for epoch in '12'
  ]
  assert {row['simulated'] for row in rows} == {'True'}
  # The learning rate of a stage's last step, one step before the cosine reaches
  # zero; the warm-up takes 5 % of the steps.
  for row in (row for row in rows if row['epoch'] == '2'):
    steps = int(row['step'])
    falling = steps - max(1, steps // 20)
    last = 0.002 / 2 * (1 - math.cos(math.pi / falling))
    assert float(row['learning_rate']) == pytest.approx(last, rel=1e-3)


def test_tensorboard_shows_the_learning_rate(finished_run):
  workdir, _ = finished_run
  for stage in STAGES:
    (path,) = (workdir / 'tb' / stage).iterdir()
    rates = {
      event.step: event.summary.value[0].simple_value
      for event in run_files.events(path)
      if event.summary.value
      and event.summary.value[0].tag == 'simulated/learning_rate'
    }
    # The test variant logs every step, and the warm-up ends at the second one.
    assert list(rates) == list(range(1, len(rates) + 1))
    assert max(rates.values()) == pytest.approx(0.002)


def test_a_finished_run_is_shown_and_not_changed(
  finished_run, phantom_data_dir
):
  workdir, _ = finished_run
  before = (workdir / 'metrics.json').stat().st_mtime_ns
  done = main_job.run(main_job.small_job(workdir, phantom_data_dir))
  assert done.returncode == 0
  assert 'is finished' in done.stdout
  assert (workdir / 'metrics.json').stat().st_mtime_ns == before


def test_another_config_in_the_same_workdir_is_refused(
  finished_run, phantom_data_dir
):
  workdir, _ = finished_run
  done = main_job.run(
    main_job.small_job(workdir, phantom_data_dir, '--config.seed=7')
  )
  assert done.returncode == 2
  assert 'seed was 0 and is now 7' in done.stderr
  assert 'Traceback' not in done.stderr


@pytest.fixture
def copied_run(finished_run, tmp_path):
  """A copy of a finished run, which tests may change."""
  return shutil.copytree(finished_run[0], tmp_path / 'run')


def test_results_without_their_config_are_not_shown_for_another_one(
  copied_run, phantom_data_dir
):
  (copied_run / 'config.json').unlink()
  done = main_job.run(
    main_job.small_job(copied_run, phantom_data_dir, '--config.seed=7')
  )
  assert done.returncode == 2
  assert 'holds the metrics.json of a run, but its config.json' in done.stderr
  assert 'Report:' not in done.stdout
  assert not (copied_run / 'config.json').exists()


def test_results_of_another_run_are_not_shown_as_this_one_s(
  copied_run, phantom_data_dir
):
  path = copied_run / 'metrics.json'
  results = json.loads(path.read_text())
  path.write_text(json.dumps({**results, 'seed': 7}))
  done = main_job.run(main_job.small_job(copied_run, phantom_data_dir))
  assert done.returncode == 2
  assert 'seed was 7 there and is 0 here' in done.stderr
  assert 'Report:' not in done.stdout


def test_another_dataset_of_the_same_name_is_refused(
  copied_run, phantom_data_dir
):
  """For example, rebuilt with other patients: a run must not mix the two."""
  path = copied_run / 'config.json'
  config = json.loads(path.read_text())
  assert re.fullmatch('[0-9a-f]{16}', config['dataset']['fingerprint'])
  config['dataset']['fingerprint'] = '0' * 16
  path.write_text(json.dumps(config))
  done = main_job.run(main_job.small_job(copied_run, phantom_data_dir))
  assert done.returncode == 2
  assert 'dataset.fingerprint was 0000000000000000' in done.stderr


def test_without_the_real_dataset_a_banner_names_the_command(
  tmp_path, phantom_data_dir, capsys
):
  import importlib.util

  spec = importlib.util.spec_from_file_location(
    'mtnet_config', main_job.ROOT / 'configs' / 'mtnet.py'
  )
  configs = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(configs)
  config = configs.get_config()
  config.dataset.data_dir = str(phantom_data_dir)
  chosen = choice.choose_dataset(config)
  assert chosen.dataset.name == 'lidc_nodules/phantom'
  # The config of the caller is unchanged.
  assert config.dataset.name == 'lidc_nodules/paper'
  printed = capsys.readouterr().out
  assert 'SIMULATED' in printed
  assert 'python -m tfds_lidc.build --config=paper --lidc_dir=DIR' in printed


@pytest.mark.parametrize('split', ('train', 'validation'))
@pytest.mark.parametrize('label', (0, 1))
def test_a_split_of_one_class_is_refused(split, label, monkeypatch):
  both = step_job.made_up_nodules(6)
  assert set(both.label) == {0, 1}
  # Open nodules have no class.
  one = dataclasses.replace(
    both, label=np.where(both.label == label, label, -1)
  )
  splits = {name: both for name in lidc.SPLITS}
  replacements = {
    'is_simulated': lambda *_: False,
    'built_splits': lambda *_: lidc.SPLITS,
    'load_splits': lambda _: splits,
  }
  for name, value in replacements.items():
    monkeypatch.setattr(lidc, name, value)
  config = project_configs.CONFIGS.get_config('test')
  assert lidc.load_for_training(config) is splits
  splits[split] = one
  with pytest.raises(errors.InputError, match=f'the {split} split of .* both'):
    lidc.load_for_training(config)
