"""The same run once more, on two devices, and in two processes.

One device against eight is in `test_step`: there sums have another order, and
dropout, which is drawn per device, is off.
"""

import json
import re
import signal

import main_job
import pytest
import run_files

pytestmark = pytest.mark.slow

# Batches that do not divide the test split: the last one is filled up.
_FILLED_UP = '--config.eval_batch_size=10'
_TWO_DEVICES = {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}


def files(workdir):
  return [
    (workdir / name).read_text() for name in ('metrics.json', 'records.csv')
  ]


def metrics(workdir):
  return json.loads((workdir / 'metrics.json').read_text())


@pytest.mark.long
def test_the_same_seed_repeats_itself_and_another_does_not(
  finished_run, tmp_path, phantom_data_dir, compiled
):
  first, _ = finished_run
  for name, flags in (('again', []), ('other', ['--config.seed=1'])):
    job = main_job.small_job(tmp_path / name, phantom_data_dir, *flags)
    done = main_job.run(job, **compiled)
    assert done.returncode == 0, done.stderr[-3000:]
  assert files(tmp_path / 'again') == files(first)
  run_files.assert_same_checkpoints(tmp_path / 'again', first)
  ours, theirs = map(run_files.losses, (tmp_path / 'other', first))
  assert len(ours) == len(theirs) == 6
  assert not set(ours) & set(theirs)
  for metric in ('classification', 'segmentation'):
    assert (
      metrics(tmp_path / 'other')['test'][metric]
      != metrics(first)['test'][metric]
    )


def _on_two_devices(workdir, data_dir, compiled, *flags):
  """Runs one process with two devices."""
  job = main_job.small_job(workdir, data_dir, _FILLED_UP, *flags)
  done = main_job.run(job, **compiled, **_TWO_DEVICES)
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir


def _jobs(first, data_dir, *flags):
  """The commands of two processes, of which the first has a run directory.

  The second touches no file: its run directory cannot be made.
  """
  return [
    main_job.small_job(workdir, data_dir, _FILLED_UP, *flags)
    for workdir in (first, '/dev/null/nowhere')
  ]


def _assert_end_well(started):
  """Returns what the first of two processes says to their end."""
  first, second = main_job.finish_two(started)
  assert first.returncode == 0, first.stderr[-3000:]
  assert second.returncode == 0, second.stderr[-3000:]
  assert 'in 2 processes' in first.stdout
  assert 'nodules' not in second.stdout
  return first.stdout


def _assert_same_but_for_processes(two, one):
  assert files(two)[1] == files(one)[1]
  ours, theirs = metrics(two), metrics(one)
  assert ours['hardware'].pop('processes') == 2
  assert theirs['hardware'].pop('processes') == 1
  assert ours == theirs


def test_two_processes_train_a_stage_as_one_with_two_devices(
  tmp_path, phantom_data_dir, compiled
):
  """A sum of two numbers does not depend on their order: bit for bit."""
  flags = ("--config.stages=('coarse',)", '--config.image_size=32')
  one = _on_two_devices(tmp_path / 'one', phantom_data_dir, compiled, *flags)
  two = tmp_path / 'two'
  _assert_end_well(
    main_job.start_on_two(_jobs(two, phantom_data_dir, *flags), **compiled)
  )
  run_files.assert_same_checkpoints(one, two, stages=('coarse',))
  assert run_files.losses(one) == run_files.losses(two)
  _assert_same_but_for_processes(two, one)


@pytest.mark.long
def test_two_processes_are_one_with_two_devices_bit_for_bit(
  tmp_path, phantom_data_dir, compiled
):
  """Each is killed once in the middle, and both started again, at that."""
  two_devices = _on_two_devices(tmp_path / 'one', phantom_data_dir, compiled)
  first = tmp_path / 'first'
  jobs = _jobs(first, phantom_data_dir, '--config.checkpoint_minutes=0')
  # Each in the middle of a second epoch.
  for victim, stage in enumerate(('coarse', 'class')):
    started = main_job.start_on_two(jobs, **compiled)
    shown = ''
    while not (stage in shown and '11/16' in shown and 'loss' in shown):
      character = started[0].stderr.read(1)
      assert character, shown[-2000:]
      shown = '' if character in '\r\n' else shown + character
    started[victim].send_signal(signal.SIGKILL)
    # Without the one, the other does not wait for ever.
    done = main_job.finish_two(started, seconds=60)
    assert done[victim].returncode == -signal.SIGKILL
    other = done[1 - victim]
    assert other.returncode == 1, other.stderr[-3000:]
    assert 'error: another process of this run has ended' in other.stderr
    assert 'Traceback' not in other.stderr
    assert not (first / 'metrics.json').exists()

  said = _assert_end_well(main_job.start_on_two(jobs, **compiled))
  (step,) = re.findall(r'class: resumes at step (\d+)', said)
  assert 8 < int(step) < 16

  run_files.assert_same_checkpoints(first, two_devices)
  _assert_same_but_for_processes(first, two_devices)


def test_processes_of_two_configs_are_refused(tmp_path):
  jobs = [
    main_job.test_size_job(tmp_path / 'run', tmp_path, *flags)
    for flags in ([], ['--config.seed=3', '--config.augment.zoom=1.2'])
  ]
  for done in main_job.finish_two(main_job.start_on_two(jobs), seconds=120):
    assert done.returncode == 2, done.stderr[-3000:]
    assert 'process 1 was given another config' in done.stderr
    assert 'seed was 0 and is now 3' in done.stderr
    assert 'augment.zoom was 1.1 and is now 1.2' in done.stderr
    assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'run').exists()


def test_what_stops_the_first_process_stops_the_others(tmp_path):
  """With the same line and code: here, a dataset that the first lacks."""
  job = [
    *main_job.test_size_job(tmp_path / 'run', tmp_path / 'empty'),
    '--config.dataset.name=lidc_nodules/paper',
    '--config.dataset.fallback=',
  ]
  done = main_job.finish_two(main_job.start_on_two([job, job]), seconds=120)
  for process in done:
    assert process.returncode == 2, process.stderr[-3000:]
    assert 'lidc_nodules/paper was not built' in process.stderr
    assert 'Traceback' not in process.stderr
