"""One process at a time uses a run directory; a lock ends with its owner."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from unittest import mock

import main_job
import pytest

from mtnet_jax.storage import together
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors

_HOLD = """
import sys, time
from mtnet_jax.storage import together
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
    who = f'process {process.pid} on .*, since 20'
    with pytest.raises(errors.BusyError, match=f'uses {tmp_path} \\({who}'):
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


@pytest.mark.parametrize('kind', ('folder', 'link', 'second name', 'pipe'))
def test_what_cannot_be_locked_is_refused(tmp_path, kind):
  path, victim = tmp_path / '.lock', tmp_path / 'thesis.tex'
  victim.write_text('text')
  if kind == 'folder':
    path.mkdir()
  elif kind == 'link':
    path.symlink_to(victim)
  elif kind == 'second name':
    path.hardlink_to(victim)
  else:
    os.mkfifo(path)
  with pytest.raises(errors.InputError, match='cannot be locked'):
    with workdir.lock(tmp_path):
      pytest.fail('held')
  assert victim.read_text() == 'text'


def test_an_empty_lock_file_of_an_earlier_version_is_used(tmp_path):
  """It is removed afterwards."""
  (tmp_path / '.lock').touch()
  with workdir.lock(tmp_path):
    pass
  assert not list(tmp_path.iterdir())


def test_a_users_file_is_locked_and_left_unchanged(tmp_path):
  (tmp_path / '.lock').write_text('notes')
  with workdir.lock(tmp_path):
    with pytest.raises(errors.BusyError, match=f'uses {tmp_path}: wait for it'):
      with workdir.lock(tmp_path):
        pass
  assert (tmp_path / '.lock').read_text() == 'notes'


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, capsys):
  no_locks = mock.Mock(side_effect=OSError(errno.ENOLCK, 'No locks available'))
  monkeypatch.setattr(fcntl, 'flock', no_locks)
  for lock in (workdir.lock, together.one_writer):
    with lock(tmp_path):
      pass
    assert 'has no locks' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_a_run_holds_its_directory(tmp_path, phantom_data_dir):
  job = main_job.test_size_job(tmp_path / 'run', phantom_data_dir)
  (tmp_path / 'run').mkdir()
  with workdir.lock(tmp_path / 'run'):
    done = main_job.run(job)
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'another process that still runs uses' in done.stderr
  assert not (tmp_path / 'run' / 'config.json').exists()
