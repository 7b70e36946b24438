"""The whole protocol's time follows from a few epochs of each stage."""

import json

import main_job
import pytest


@pytest.mark.long
def test_other_epochs_stand_for_those_that_are_left(
  tmp_path, phantom_data_dir, compiled
):
  path = tmp_path / 'protocol.json'
  done = main_job.run(
    main_job.module(
      'benchmarks.protocol',
      '--config=configs/mtnet.py:test',
      f'--config.dataset.data_dir={phantom_data_dir}',
      "--config.stages=('coarse', 'class')",
      '--config.coarse_stage.epochs=7000',
      '--config.class_stage.epochs=9000',
      '--config.class_stage.batch_size=16',
      '--epochs=2',
      '--nodules=24',
      f'--json={path}',
    ),
    **compiled,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(path.read_text())
  rows = found['stages']
  assert [row['stage'] for row in rows] == ['coarse', 'class']
  # 24 nodules, two looks, in batches of 8 and of 16.
  assert [row['steps'] for row in rows] == [6, 3]
  assert [row['epochs'] for row in rows] == [7000, 9000]
  for row in rows:
    # The first epoch compiled; all others are as long as the second.
    assert row['first_s'] > row['epoch_s'] > 0
    hours = row['minutes'] / 60
    assert hours == pytest.approx(
      row['epochs'] * row['epoch_s'] / 3600, rel=0.1
    )
  minutes = found['settings']['minutes']
  assert minutes == pytest.approx(sum(row['minutes'] for row in rows))
  assert f'{minutes:.1f} minutes in all, EXTRAPOLATED from 2' in done.stdout
  assert 'SIMULATED CT, 24 training nodules' in done.stdout
