"""Rehearses the training of a visit to a GPU on a CPU."""

import json

import main_job
import pytest

from benchmarks.gpu import budget

_FILES = (
  'metrics.json',
  'records.csv',
  'train_log.csv',
  'config.json',
  'index.html',
)


def _trained(out, phantom_data_dir, compiled, *flags, seconds):
  return main_job.visit(
    'train',
    out,
    '--tiny',
    f'--seconds={seconds}',
    f'--config.dataset.data_dir={phantom_data_dir}',
    *flags,
    **compiled,
  )


@pytest.mark.long
def test_a_run_and_its_metrics(tmp_path, phantom_data_dir, compiled):
  done, rows = _trained(tmp_path, phantom_data_dir, compiled, seconds=900)
  assert done.returncode == 0, done.stderr[-3000:]
  stages = [row for row in rows if 'stage' in row]
  assert [row['stage'] for row in stages] == list(budget.SHARES)
  # There is time for all epochs of the config.
  assert all(row['epochs'] == row['of_epochs'] == 2 for row in stages)
  tested = {row['test']: row for row in rows if 'test' in row}
  metrics = json.loads((tmp_path / 'metrics.json').read_text())['test']
  for name in ('coarse', 'fine'):
    assert tested[name]['dice'] == metrics['segmentation'][name]['dice']
  assert tested['fine']['paper']['dice'] == 0.832
  assert tested['class']['auc'] == metrics['classification']['auc']
  assert len(tested['class']['auc']['ci95']) == 2
  assert all(row['complete'] and row['simulated'] for row in tested.values())
  assert all((tmp_path / name).stat().st_size for name in _FILES)
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['dtype'] == 'bfloat16'
  assert config['fine_stage']['schedule'] == 'cosine'


@pytest.mark.long
def test_a_run_without_time_leaves_its_log(
  tmp_path, phantom_data_dir, compiled
):
  done, rows = _trained(
    tmp_path,
    phantom_data_dir,
    compiled,
    *(f'--config.{name}_stage.epochs=100' for name in budget.SHARES),
    '--config.dtype=float32',
    seconds=12,
  )
  assert done.returncode != 0
  assert 'failed' in rows[-1]
  # The command line sets all epochs, so nothing is measured.
  assert not any('measured' in row for row in rows)


def test_epochs_fit_into_their_shares():
  cost = budget.Cost(compile_s=40, step_s=0.05, end_s=5, steps_per_epoch=300)
  assert cost.epoch_s == pytest.approx(20)
  costs = dict.fromkeys(budget.SHARES, cost)
  limit = dict.fromkeys(budget.SHARES, 100)
  epochs = budget.epochs_for(costs, 600, max_epochs=limit)
  # 0.93 * 240 - 3 - 28, 0.93 * 120 - 3 and 0.93 * 180 - 3 s; an epoch is 20 s.
  assert epochs == {'coarse': 9, 'class': 5, 'fine': 8}
  # At least one epoch, and at most those of the config.
  assert set(budget.epochs_for(costs, 1, max_epochs=limit).values()) == {1}
  few = dict.fromkeys(budget.SHARES, 2)
  assert budget.epochs_for(costs, 600, max_epochs=few) == few
