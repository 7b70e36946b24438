"""A run repeated exactly: the same way, on two devices, and in two processes.

`test_step` compares one device with eight, where sums have another order. There
dropout is off, because each device draws its own.
"""

import json
import re
import signal

import main_job
import pytest
import run_files

pytestmark = pytest.mark.slow

# The test split is no multiple of this batch size: the last batch is padded.
_PADDED = '--config.eval_batch_size=10'
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
  job = main_job.small_job(workdir, data_dir, _PADDED, *flags)
  done = main_job.run(job, **compiled, **_TWO_DEVICES)
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir


def _jobs(first, data_dir, *flags):
  """Returns the commands of two processes.

  Only the first one has a run directory. The directory of the second one cannot
  be made, so it would fail if it wrote a file.
  """
  return [
    main_job.small_job(workdir, data_dir, _PADDED, *flags)
    for workdir in (first, '/dev/null/nowhere')
  ]


def _assert_success(started):
  """Waits for two processes, and returns the output of the first one."""
  first, second = main_job.finish_two(started)
  assert first.returncode == 0, first.stderr[-3000:]
  assert second.returncode == 0, second.stderr[-3000:]
  assert 'in 2 processes' in first.stdout
  assert 'nodules' not in second.stdout
  return first.stdout


def _assert_same_except_processes(two, one):
  assert files(two)[1] == files(one)[1]
  ours, theirs = metrics(two), metrics(one)
  assert ours['hardware'].pop('processes') == 2
  assert theirs['hardware'].pop('processes') == 1
  assert ours == theirs


@pytest.mark.long
def test_two_processes_train_a_stage_as_one_with_two_devices(
  tmp_path, phantom_data_dir, compiled
):
  """Bit for bit, since a sum of two numbers does not depend on their order."""
  flags = ("--config.stages=('coarse',)", '--config.image_size=32')
  one = _on_two_devices(tmp_path / 'one', phantom_data_dir, compiled, *flags)
  two = tmp_path / 'two'
  _assert_success(
    main_job.start_on_two(_jobs(two, phantom_data_dir, *flags), **compiled)
  )
  run_files.assert_same_checkpoints(one, two, stages=('coarse',))
  assert run_files.losses(one) == run_files.losses(two)
  _assert_same_except_processes(two, one)


@pytest.mark.long
def test_two_processes_are_one_with_two_devices_bit_for_bit(
  tmp_path, phantom_data_dir, compiled
):
  """Each process is killed once, and then both are started again."""
  two_devices = _on_two_devices(tmp_path / 'one', phantom_data_dir, compiled)
  first = tmp_path / 'first'
  jobs = _jobs(first, phantom_data_dir, '--config.checkpoint_minutes=0')
  # Each one is killed in the middle of a second epoch.
  for victim, stage in enumerate(('coarse', 'class')):
    started = main_job.start_on_two(jobs, **compiled)
    shown = ''
    while not (stage in shown and '11/16' in shown and 'loss' in shown):
      character = started[0].stderr.read(1)
      assert character, shown[-2000:]
      shown = '' if character in '\r\n' else shown + character
    started[victim].send_signal(signal.SIGKILL)
    # The other process must not wait forever for the killed one.
    done = main_job.finish_two(started, seconds=60)
    assert done[victim].returncode == -signal.SIGKILL
    other = done[1 - victim]
    assert other.returncode == 1, other.stderr[-3000:]
    assert 'error: another process of this run has ended' in other.stderr
    assert 'Traceback' not in other.stderr
    assert not (first / 'metrics.json').exists()

  output = _assert_success(main_job.start_on_two(jobs, **compiled))
  (step,) = re.findall(r'class: resumes at step (\d+)', output)
  assert 8 < int(step) < 16

  run_files.assert_same_checkpoints(first, two_devices)
  _assert_same_except_processes(first, two_devices)


def test_processes_with_different_configs_are_refused(tmp_path):
  jobs = [
    main_job.test_size_job(tmp_path / 'run', tmp_path, *flags)
    for flags in ([], ['--config.seed=3', '--config.augment.zoom=1.2'])
  ]
  for done in main_job.finish_two(main_job.start_on_two(jobs), seconds=120):
    assert done.returncode == 2, done.stderr[-3000:]
    assert 'process 1 has another config' in done.stderr
    assert 'seed was 0 and is now 3' in done.stderr
    assert 'augment.zoom was 1.1 and is now 1.2' in done.stderr
    assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'run').exists()


def test_an_error_of_the_first_process_ends_the_others(tmp_path):
  """With the same message and exit code; here, the first lacks the dataset."""
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
