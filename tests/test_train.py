"""Training: resume bit for bit, any number of devices, refusals."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from mtnet_jax import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
MAIN = [
  sys.executable,
  '-m',
  'mtnet_jax.main',
  f'--config={ROOT}/configs/mtnet.py:test',
]
STAGES = ('coarse', 'class', 'fine')


def environment(cache, **more):
  """A child's environment: compiled programs are kept between children."""
  return {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    'JAX_COMPILATION_CACHE_DIR': str(cache),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '1',
    **more,
  }


def job(workdir, data_dir, *flags):
  return [
    *MAIN,
    f'--workdir={workdir}',
    f'--config.dataset.data_dir={data_dir}',
    *flags,
  ]


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('compiled')


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, phantom_data_dir, cache):
  """A finished run of the test size, and what it printed."""
  workdir = tmp_path_factory.mktemp('runs') / 'undisturbed'
  done = subprocess.run(
    job(workdir, phantom_data_dir),
    env=environment(cache),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir, done.stdout


def leaves(tree, prefix=''):
  if not isinstance(tree, dict):
    return {prefix: np.asarray(tree)}
  found = {}
  for key, value in tree.items():
    found.update(leaves(value, f'{prefix}/{key}'))
  return found


def assert_same_checkpoints(left, right):
  """Latest and best of every stage, bit for bit; step counts alike."""
  for stage in STAGES:
    for load in ('latest', 'best'):
      trees = []
      for workdir in (left, right):
        found = checkpoint.Checkpoints(workdir / 'checkpoints' / stage)
        tree = found.read(load)
        trees.append(leaves(tree))
      assert trees[0].keys() == trees[1].keys()
      for name, leaf in trees[0].items():
        np.testing.assert_array_equal(
          leaf, trees[1][name], err_msg=f'{stage} {load} {name}'
        )


def test_run_directory_holds_what_the_design_promises(undisturbed):
  workdir, printed = undisturbed
  for name in (
    'config.json',
    'metrics.json',
    'records.csv',
    'train_log.csv',
    'tb/coarse',
    'report/index.html',
    *(f'checkpoints/{stage}' for stage in STAGES),
  ):
    assert (workdir / name).exists(), name
  results = json.loads((workdir / 'metrics.json').read_text())
  assert results['simulated'] is True
  assert results['dataset'] == 'lidc_nodules/phantom'
  value = results['test']['segmentation']['fine']['dice']
  assert value['ci95'][0] <= value['value'] <= value['ci95'][1]
  assert 'SIMULATED' in printed
  # A row per epoch: three stages of two.
  log = (workdir / 'train_log.csv').read_text().splitlines()
  assert [line.split(',')[:2] for line in log[1:]] == [
    [stage, epoch] for stage in STAGES for epoch in '12'
  ]


def test_killed_runs_end_bit_for_bit_like_an_undisturbed_one(
  undisturbed, tmp_path, phantom_data_dir, cache
):
  workdir = tmp_path / 'killed'
  command = job(workdir, phantom_data_dir)
  # 32 nodules, 2 looks, batch 8: epochs of 8 steps. Killed in the middle of
  # an epoch of each stage, before and after its first checkpoint.
  for moment in ('coarse.*11/16', 'class.*3/16', 'fine.*13/16'):
    kill_at(command, moment, environment(cache))
    assert not (workdir / 'metrics.json').exists()
  done = subprocess.run(
    command, env=environment(cache), capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert 'going on at step 8 of 16' in done.stdout
  assert_same_checkpoints(undisturbed[0], workdir)
  for name in ('metrics.json', 'records.csv'):
    assert (workdir / name).read_text() == (
      undisturbed[0] / name
    ).read_text(), name


def kill_at(command, pattern, env):
  """Starts a command and kills it when its progress bar shows a pattern."""
  import re

  process = subprocess.Popen(
    command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
  )
  shown = b''
  while not re.search(pattern.encode() + b'.*loss', shown):
    byte = process.stderr.read(1)
    assert byte, f'ended before {pattern}: {shown[-2000:]}'
    shown = b'' if byte in b'\r\n' else shown + byte
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL


def test_a_finished_run_says_so_and_changes_nothing(
  undisturbed, phantom_data_dir, cache
):
  workdir, _ = undisturbed
  before = (workdir / 'metrics.json').stat().st_mtime_ns
  done = subprocess.run(
    job(workdir, phantom_data_dir),
    env=environment(cache),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0
  assert 'is finished' in done.stdout
  assert (workdir / 'metrics.json').stat().st_mtime_ns == before


def test_another_config_in_the_same_workdir_is_refused(
  undisturbed, phantom_data_dir, cache
):
  workdir, _ = undisturbed
  done = subprocess.run(
    job(workdir, phantom_data_dir, '--config.seed=7'),
    env=environment(cache),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'seed was 0 and is now 7' in done.stderr
  assert 'Traceback' not in done.stderr
