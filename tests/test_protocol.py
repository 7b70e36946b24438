"""The whole protocol's time follows from a few epochs of each stage."""

import types

import pytest
import step_job

from benchmarks import protocol


def test_other_epochs_stand_for_those_that_are_left():
  trainer = types.SimpleNamespace(
    stage=types.SimpleNamespace(name='coarse'), steps_per_epoch=50
  )
  clock = protocol._Clock()
  clock.seconds = [100.0, 4.0, 30.0, 5.0]
  row = protocol._row(trainer, 100, clock)
  assert row['minutes'] == pytest.approx((100 + 99 * 5) / 60)


@pytest.mark.slow
def test_stages_follow_each_other_and_their_own_epochs_count(tmp_path):
  config = step_job.coarse_config()
  with config.unlocked():
    config.stages = ('coarse', 'fine')
    config.coarse_stage.epochs, config.fine_stage.epochs = 7, 9
    config.fine_stage.batch_size = 8
  nodules = step_job.made_up_nodules(8)
  rows = protocol.measure(
    config,
    {'train': nodules, 'validation': nodules},
    epochs=2,
    folder=tmp_path,
  )
  assert [row['stage'] for row in rows] == ['coarse', 'fine']
  # 8 nodules, two looks, in fours and in eights.
  assert [row['steps'] for row in rows] == [4, 2]
  assert [row['epochs'] for row in rows] == [7, 9]
  for row in rows:
    seconds = row['first_s'] + (row['epochs'] - 1) * row['epoch_s']
    assert row['minutes'] == pytest.approx(seconds / 60)
    # The first one compiled, or loaded what others did.
    assert row['first_s'] > row['epoch_s'] > 0
