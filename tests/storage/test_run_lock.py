"""One process at a time in a run directory; a lock dies with its owner."""

import signal
import subprocess
import sys

import main_job
import pytest

from mtnet_jax.storage import workdir
from mtnet_jax.system import errors

_HOLD = """
import sys, time
from mtnet_jax.storage import workdir
with workdir.lock(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
  process = subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(tmp_path)],
    env=main_job.environment(),
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout.readline() == 'held\n'
    with pytest.raises(errors.InputError, match=f'has {tmp_path}: wait for it'):
      with workdir.lock(tmp_path):
        pytest.fail('held twice')
  finally:
    process.send_signal(signal.SIGKILL)
    process.communicate()
  with workdir.lock(tmp_path):
    pass


def test_a_lock_is_released_after_an_error(tmp_path):
  for _ in range(2):
    with pytest.raises(ZeroDivisionError), workdir.lock(tmp_path):
      raise ZeroDivisionError


def test_what_cannot_be_locked_is_refused(tmp_path):
  (tmp_path / '.lock').mkdir()
  with pytest.raises(errors.InputError, match='cannot be locked'):
    with workdir.lock(tmp_path):
      pytest.fail('held')


def test_a_run_holds_its_directory(tmp_path, phantom_data_dir):
  job = main_job.test_size_job(tmp_path / 'run', phantom_data_dir)
  (tmp_path / 'run').mkdir()
  with workdir.lock(tmp_path / 'run'):
    done = main_job.run(job)
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'another process that still runs has' in done.stderr
  assert not (tmp_path / 'run' / 'config.json').exists()
