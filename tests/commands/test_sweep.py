"""Sweeps as a user runs them: stopped and resumed, on several devices."""

import csv
import json
import shutil
import signal
import subprocess
import threading

import main_job
import numpy as np
import pytest

from mtnet_jax.experiments import sweep_runs
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import stopping
from mtnet_jax.training import progress

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('sigterm', (False, True))
def test_a_run_that_saves_after_sigterm_is_not_ended_by_others(
  tmp_path, monkeypatch, sigterm
):
  monkeypatch.setattr(progress.Observer, 'step', lambda *_: None)
  stop = threading.Event()
  observer = sweep_runs._Observer(
    tmp_path, stop=stop, simulated=True, log_every=1
  )
  observer.step(1, 0.5)
  # The failure of another run has ended the sweep.
  stop.set()
  if sigterm:
    monkeypatch.setattr(stopping, 'asked', lambda: True)
    observer.step(2, 0.5)
  else:
    with pytest.raises(sweep_runs._StoppedError):
      observer.step(2, 0.5)


def job(workdir, data_dir, *flags):
  return main_job.module(
    'mtnet_jax.sweep',
    f'--config={main_job.ROOT}/tests/sweep_config.py:{data_dir}',
    f'--workdir={workdir}',
    *flags,
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory, phantom_data_dir, compiled):
  """The directory of a sweep that was not stopped, and its output."""
  workdir = tmp_path_factory.mktemp('sweeps') / 'undisturbed'
  done = main_job.run(job(workdir, phantom_data_dir), **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir, done.stdout


def test_processes_share_a_sweep(
  tmp_path, phantom_data_dir, compiled, finished
):
  """A process skips a point that another one trains, and the report, too."""
  workdir = tmp_path / 'shared'
  shutil.copytree(finished[0], workdir)
  taken = workdir / 'margin30'
  for path in (taken / 'metrics.json', workdir / 'report'):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  command = job(workdir, phantom_data_dir)
  with workdir_lib.lock(taken):
    done = main_job.run(command, **compiled)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'still train 1 of 3 runs, such as margin30' in done.stdout
    assert 'margin90: JA ' in done.stdout
    assert not (taken / 'metrics.json').exists()
    assert not (workdir / 'report').exists()
  done = main_job.run(command, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert results(workdir) == results(finished[0])


def results(workdir):
  with open(workdir / 'report' / 'results.csv', newline='') as file:
    return list(csv.DictReader(file))


def test_a_sweep_ends_with_its_table_and_its_figure(finished):
  workdir, output = finished
  for point in ('margin10', 'margin30', 'margin90'):
    assert (workdir / point / 'report' / 'index.html').exists()
    assert f'{point}: JA ' in output
  page = (workdir / 'report' / 'index.html').read_text()
  assert 'SIMULATED' in page and 'Jaccard index at the reference' in page
  assert (workdir / 'report' / 'jaccard.png').stat().st_size > 10_000
  rows = results(workdir)
  assert {row['simulated'] for row in rows} == {'True'}
  values = {
    row['point']: float(row['value'])
    for row in rows
    if row['metric'] == 'jaccard'
  }
  assert len(values) == 3
  for row in rows:
    if row['point'] != 'margin30':
      # Every difference has an interval.
      assert row['paired'] == 'True' and row['difference_low']
      assert row['verdict']
  stored = json.loads((workdir / 'margin10' / 'metrics.json').read_text())
  assert values['margin10'] == pytest.approx(
    stored['test']['segmentation']['coarse']['jaccard']['value']
  )


def test_a_killed_sweep_is_resumed(
  finished, tmp_path, phantom_data_dir, compiled
):
  workdir = tmp_path / 'killed'
  command = job(workdir, phantom_data_dir)
  process = subprocess.Popen(
    command,
    env=main_job.environment(**compiled),
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  for line in process.stdout:
    if 'margin10: JA' in line:
      break
  process.send_signal(signal.SIGKILL)
  process.stdout.close()
  assert process.wait() == -signal.SIGKILL
  assert not (workdir / 'report').exists()
  done = main_job.run(command, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert 'margin10: JA' in done.stdout
  assert done.stdout.count('finished before') == 1
  assert results(workdir) == results(finished[0])


def test_points_that_were_mixed_up_are_refused(finished, compiled):
  workdir, _ = finished
  data_dir = json.loads((workdir / 'sweep.json').read_text())['points'][
    'margin10'
  ]['dataset']['data_dir']
  first, second = workdir / 'margin10', workdir / 'margin90'
  try:
    first.rename(workdir / 'moved')
    second.rename(first)
    (workdir / 'moved').rename(second)
    done = main_job.run(job(workdir, data_dir), **compiled)
  finally:
    first.rename(workdir / 'moved')
    second.rename(first)
    (workdir / 'moved').rename(second)
  assert done.returncode == 2
  assert 'point margin10' in done.stderr
  assert 'rank_loss.margin was 0.9 and is now 0.1' in done.stderr


@pytest.mark.long
def test_two_devices_train_points_of_their_own(
  finished, tmp_path, phantom_data_dir, compiled
):
  workdir = tmp_path / 'two'
  done = main_job.run(
    job(workdir, phantom_data_dir),
    XLA_FLAGS='--xla_force_host_platform_device_count=2',
    **compiled,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  for point in ('margin10', 'margin30', 'margin90'):
    metrics = json.loads((workdir / point / 'metrics.json').read_text())
    assert metrics['hardware']['devices'] == 1
  # The runs are those of one device, except for rounding: XLA compiles other
  # programs for other numbers of threads.
  for ours, theirs in zip(results(workdir), results(finished[0]), strict=True):
    assert ours['point'] == theirs['point']
    np.testing.assert_allclose(
      float(ours['value']), float(theirs['value']), atol=0.02
    )


def test_a_wrong_config_is_refused_in_one_line(tmp_path):
  for value, message in (
    ('configs/ablations.py:table9', "'table9' is unknown"),
    ('configs/ablations.py:table4,huge', "'huge' is unknown"),
  ):
    done = main_job.run(
      main_job.module(
        'mtnet_jax.sweep', f'--config={value}', f'--workdir={tmp_path}'
      )
    )
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
