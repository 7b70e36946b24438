"""The training loop: killed runs give the results of undisturbed ones."""

import re
import signal
import subprocess
import time

import main_job
import pytest
import run_files


def wait_for(process, pattern):
  """Reads a process's progress bar until it shows a pattern."""
  shown = b''
  # A complete bar ends with the loss.
  while not re.search(pattern.encode() + b'.*loss', shown):
    byte = process.stderr.read(1)
    assert byte, f'ended before {pattern}: {shown[-2000:]}'
    shown = b'' if byte in b'\r\n' else shown + byte


def started_until(command, pattern, env):
  """Starts a command; returns once its progress bar shows a pattern."""
  process = subprocess.Popen(
    command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
  )
  wait_for(process, pattern)
  return process


def kill_at(command, pattern, env):
  """Kills a command once its progress bar shows a pattern."""
  process = started_until(command, pattern, env)
  process.send_signal(signal.SIGKILL)
  process.stderr.close()
  assert process.wait() == -signal.SIGKILL


def stop_at(command, pattern, env):
  """Stops a command with SIGTERM; returns its last output and the seconds."""
  process = started_until(command, pattern, env)
  started = time.monotonic()
  process.send_signal(signal.SIGTERM)
  _, output = process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGTERM
  return output.decode(), time.monotonic() - started


@pytest.mark.slow
def test_killed_runs_end_bit_for_bit_like_an_undisturbed_one(
  finished_run, tmp_path, phantom_data_dir, compiled
):
  workdir = tmp_path / 'killed'
  # A checkpoint after every step, so that epochs are resumed half-way.
  command = main_job.small_job(
    workdir, phantom_data_dir, '--config.checkpoint_minutes=0'
  )
  # 32 nodules, 2 views, batch 8: epochs of 8 steps. Each stage is killed in the
  # middle of its first or second epoch.
  for moment in ('coarse.*11/16', 'class.*3/16', 'fine.*13/16'):
    kill_at(command, moment, main_job.environment(**compiled))
    assert not (workdir / 'metrics.json').exists()
  done = main_job.run(command, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  # The step on display may not have been saved yet; step 8 ends an epoch.
  (step,) = re.findall(r'fine: resumes at step (\d+) of 16', done.stdout)
  assert 8 < int(step) < 16
  undisturbed, _ = finished_run
  run_files.assert_same_checkpoints(undisturbed, workdir)
  for name in ('metrics.json', 'records.csv'):
    assert (workdir / name).read_text() == (undisturbed / name).read_text(), (
      name
    )
  # The mean loss of an epoch resumed half-way counts all of its steps.
  assert run_files.losses(undisturbed) == run_files.losses(workdir)


@pytest.mark.long
def test_stopped_runs_save_and_end_bit_for_bit_like_an_undisturbed_one(
  finished_run, tmp_path, phantom_data_dir, compiled
):
  workdir = tmp_path / 'stopped'
  # Without stops, there is no checkpoint within an epoch.
  command = main_job.small_job(workdir, phantom_data_dir)
  environment = main_job.environment(**compiled)
  # First on a disk without room for a checkpoint: files of at most 60 KiB.
  small = ['bash', '-c', 'ulimit -f 60; exec "$@"', 'bash', *command]
  done = main_job.run(small, **compiled)
  assert done.returncode == 2
  *_, last = done.stderr.splitlines()
  assert last.startswith(f'error: {workdir}/checkpoints/coarse/')
  # The message of the system; Orbax adds its number.
  assert re.search(r'cannot be written: (\[Errno 27\] )?File too large\.', last)
  assert 'Traceback' not in done.stderr
  for stage, shown in (('coarse', 5), ('class', 11)):
    output, seconds = stop_at(command, f'{stage}.*{shown}/16', environment)
    assert seconds < 10
    (step,) = re.findall(
      'SIGTERM: stopped. The same command resumes at step'
      rf" (\d+) of 16 of stage '{stage}'\.",
      output,
    )
    # There were steps in flight after the one on display.
    assert shown <= int(step) <= shown + 3
    assert 'Traceback' not in output
    state = run_files.read(workdir / 'checkpoints' / stage, 'latest')
    assert state['step'] == int(step)
  done = main_job.run(command, **compiled)
  assert done.returncode == 0, done.stderr[-3000:]
  assert f'class: resumes at step {step} of 16' in done.stdout
  undisturbed, _ = finished_run
  run_files.assert_same_checkpoints(undisturbed, workdir)
  for name in ('metrics.json', 'records.csv'):
    assert (workdir / name).read_text() == (undisturbed / name).read_text()
  assert run_files.losses(undisturbed) == run_files.losses(workdir)
