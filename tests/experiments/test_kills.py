"""Runs killed at random moments: a short form of `faults/kills.py`."""

import os

from faults import kills
import main_job
import pytest


@pytest.mark.long
def test_runs_killed_at_random_moments_end_like_an_undisturbed_one(
  tmp_path, compiled
):
  rows, faults = kills.run_kills(
    kills=4, seed=4, out=tmp_path, environment=main_job.environment(**compiled)
  )
  assert faults == []
  assert len(rows) == 4


def _write(directory, files):
  for name, content in files.items():
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
  'files, expected',
  [
    ({}, 'starting'),
    ({'data/x.incomplete/a': ''}, 'building'),
    ({'data/dataset_info.json': ''}, 'dataset built'),
    ({'run/config.json': ''}, 'before the first step'),
    ({'run/checkpoints/coarse/latest/12/a': ''}, 'coarse 12'),
    (
      {
        'run/checkpoints/coarse/latest/16/a': '',
        'run/checkpoints/class/latest/3.tmp/a': '',
      },
      'coarse 16',
    ),
    ({'run/records.csv': ''}, 'report'),
    ({'run/records.csv': '', 'run/metrics.json': ''}, 'finished'),
  ],
)
def test_the_progress_of_a_run_is_recognised(tmp_path, files, expected):
  _write(tmp_path, files)
  assert kills.reached(tmp_path) == expected


def test_a_rewritten_file_counts_as_another_one(tmp_path):
  _write(tmp_path, {'run/records.csv': 'a'})
  before = kills.found(tmp_path, 'run/records.csv')
  assert len(before) == 1
  assert kills.found(tmp_path, 'run/records.csv') == before
  os.utime(tmp_path / 'run' / 'records.csv', ns=(1, 1))
  assert kills.found(tmp_path, 'run/records.csv').isdisjoint(before)
