"""The training loop: runs that are killed end as if they had not been."""

import csv
import re
import signal
import subprocess

import main_job
import numpy as np
import pytest

from mtnet_jax import checkpoint

STAGES = ('coarse', 'class', 'fine')


def leaves(tree, prefix=''):
  if not isinstance(tree, dict):
    return {prefix: np.asarray(tree)}
  found = {}
  for key, value in tree.items():
    found.update(leaves(value, f'{prefix}/{key}'))
  return found


def read(directory, which):
  checkpoints = checkpoint.Checkpoints(directory)
  if which == 'latest':
    return checkpoints.load_latest(like=None)[0]
  return checkpoints.load_best()[0]


def pairs_of_checkpoints(left, right):
  """Yields (its name, leaves of left, leaves of right) of every checkpoint."""
  for stage in STAGES:
    for which in ('latest', 'best'):
      ours, theirs = (
        leaves(read(workdir / 'checkpoints' / stage, which))
        for workdir in (left, right)
      )
      yield f'{stage} {which}', ours, theirs


def assert_same_checkpoints(left, right):
  """Latest and best of every stage, bit for bit."""
  for which, ours, theirs in pairs_of_checkpoints(left, right):
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
      np.testing.assert_array_equal(
        leaf, theirs[name], err_msg=f'{which} {name}'
      )


def wait_for(process, pattern):
  """Reads a process's progress bar until it shows a pattern."""
  shown = b''
  # The loss stands at the end of a bar that is complete.
  while not re.search(pattern.encode() + b'.*loss', shown):
    byte = process.stderr.read(1)
    assert byte, f'ended before {pattern}: {shown[-2000:]}'
    shown = b'' if byte in b'\r\n' else shown + byte


def kill_at(command, pattern, env):
  """Starts a command and kills it once its progress bar shows a pattern."""
  process = subprocess.Popen(
    command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
  )
  wait_for(process, pattern)
  process.send_signal(signal.SIGKILL)
  process.stderr.close()
  assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_runs_end_bit_for_bit_like_an_undisturbed_one(
  finished_run, tmp_path, phantom_data_dir, compiled
):
  workdir = tmp_path / 'killed'
  # A checkpoint after every step, so that epochs are resumed half-way.
  command = main_job.test_size_job(
    workdir, phantom_data_dir, '--config.checkpoint_minutes=0'
  )
  # 32 nodules, 2 looks, batch 8: epochs of 8 steps. Killed in the middle of
  # an epoch of each stage, the first or the second.
  for moment in ('coarse.*11/16', 'class.*3/16', 'fine.*13/16'):
    kill_at(command, moment, main_job.environment(**compiled))
    assert not (workdir / 'metrics.json').exists()
  done = main_job.run(command, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  # The step that was shown may not have been saved yet; 8 ends the epoch.
  (step,) = re.findall(r'fine: going on at step (\d+) of 16', done.stdout)
  assert 8 < int(step) < 16
  undisturbed, _ = finished_run
  assert_same_checkpoints(undisturbed, workdir)
  for name in ('metrics.json', 'records.csv'):
    assert (workdir / name).read_text() == (undisturbed / name).read_text(), (
      name
    )
  # The mean loss of an epoch resumed half-way counts all of its steps.
  assert losses(undisturbed) == losses(workdir)


def losses(workdir):
  with open(workdir / 'train_log.csv', newline='') as file:
    return [
      (row['stage'], row['epoch'], row['loss']) for row in csv.DictReader(file)
    ]
