"""The lock of a build: a file in the data directory that others may change."""

from concurrent import futures
import errno
import fcntl
import os
import threading

import pytest

from tfds_lidc import errors
from tfds_lidc.lidc_nodules import locks


def _lock_file(folder):
  """Path of the lock of a config while it is held."""
  with locks.exclusive(folder, 'paper'):
    (path,) = folder.iterdir()
  return path


def test_lock_is_in_the_data_directory_while_it_is_held(tmp_path, monkeypatch):
  data_dir, elsewhere = tmp_path / 'data', tmp_path / 'tmp'
  data_dir.mkdir()
  elsewhere.mkdir()
  # Each job of a cluster has its own folder for temporary files.
  monkeypatch.setenv('TMPDIR', str(elsewhere))
  with locks.exclusive(data_dir, 'paper'):
    (path,) = data_dir.iterdir()
    assert path.name.startswith('.')
    assert f'process {os.getpid()} on ' in path.read_text()
    with pytest.raises(errors.InputError, match='another process still builds'):
      with locks.exclusive(data_dir, 'paper', max_wait_s=0):
        pass
    # Another config and another folder have their own locks.
    with locks.exclusive(data_dir, 'all', max_wait_s=0):
      with locks.exclusive(elsewhere, 'paper', max_wait_s=0):
        pass
  assert not list(data_dir.iterdir()) + list(elsewhere.iterdir())


def test_failed_build_leaves_no_lock(tmp_path):
  with pytest.raises(KeyError):
    with locks.exclusive(tmp_path, 'paper'):
      raise KeyError
  assert not list(tmp_path.iterdir())


def test_waiting_process_prints_which_process_builds(tmp_path, capsys):
  started, may_continue = threading.Event(), threading.Event()

  def hold():
    with locks.exclusive(tmp_path, 'paper'):
      started.set()
      assert may_continue.wait(60)

  def wait():
    with locks.exclusive(tmp_path, 'paper'):
      return True

  with futures.ThreadPoolExecutor() as pool:
    first = pool.submit(hold)
    assert started.wait(60)
    second = pool.submit(wait)
    with pytest.raises(futures.TimeoutError):
      second.result(timeout=0.2)
    may_continue.set()
    first.result(60)
    assert second.result(60)
  (line,) = capsys.readouterr().out.splitlines()
  assert f'(process {os.getpid()} on ' in line
  assert line.endswith('waiting for it.')


def test_error_after_waiting_names_the_holder(tmp_path):
  path = _lock_file(tmp_path)
  # Another program's text, with an escape sequence that colours a terminal.
  path.write_bytes(b'mtnet_jax lock: \x1b[31mme\n')
  with path.open() as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    with pytest.raises(errors.InputError, match='choose another') as e:
      with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
        pass
  assert '\N{REPLACEMENT CHARACTER}[31mme' in str(e.value)
  assert '\x1b' not in str(e.value)


@pytest.mark.parametrize('kind', ('link', 'second name', 'folder', 'pipe'))
def test_lock_that_is_not_an_ordinary_file_is_refused(tmp_path, kind):
  path = _lock_file(tmp_path)
  victim = tmp_path / 'thesis.tex'
  victim.write_text('')
  if kind == 'link':
    path.symlink_to(victim)
  elif kind == 'second name':
    path.hardlink_to(victim)
  elif kind == 'folder':
    path.mkdir()
  else:
    os.mkfifo(path)
  with pytest.raises(errors.InputError, match='remove it') as e:
    with locks.exclusive(tmp_path, 'paper'):
      pass
  assert str(path) in str(e.value)
  assert victim.read_text() == ''


def test_file_that_no_build_wrote_is_not_changed(tmp_path):
  path = _lock_file(tmp_path)
  path.write_text('notes')
  with locks.exclusive(tmp_path, 'paper'):
    with pytest.raises(errors.InputError, match='not known which'):
      with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
        pass
  assert path.read_text() == 'notes'


def test_lock_of_a_killed_build_is_taken_over(tmp_path):
  path = _lock_file(tmp_path)
  path.write_text('mtnet_jax lock: process 1 on another, since long ago\n')
  with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
    assert f'process {os.getpid()} on' in path.read_text()
  assert not path.exists()


def test_lock_on_a_removed_file_is_not_valid(tmp_path, monkeypatch):
  """A process that locks a file just removed by its holder tries again."""
  flock, removed = fcntl.flock, []

  def flock_late(descriptor, flags):
    flock(descriptor, flags)
    if not removed:
      (path,) = tmp_path.iterdir()
      path.unlink()
      removed.append(path)

  monkeypatch.setattr(fcntl, 'flock', flock_late)
  with locks.exclusive(tmp_path, 'paper'):
    assert list(tmp_path.iterdir()) == removed


@pytest.mark.skipif(not os.getuid(), reason='root may open any file')
def test_lock_file_of_another_user_can_be_locked(tmp_path):
  path = _lock_file(tmp_path)
  path.write_text('mtnet_jax lock: process 1\n')
  path.chmod(0o444)
  with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
    with pytest.raises(errors.InputError, match='still builds'):
      with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
        pass


@pytest.mark.parametrize('number', (errno.ENOLCK, errno.ENOSYS))
def test_file_system_without_locks_is_reported(
  tmp_path, monkeypatch, capsys, number
):
  def flock(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', flock)
  with locks.exclusive(tmp_path, 'paper'):
    pass
  assert 'has no locks' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
