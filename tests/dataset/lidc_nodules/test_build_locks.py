"""The lock of a build lives with the data, and trusts nothing that it finds."""

from concurrent import futures
import errno
import fcntl
import os
import threading

import pytest

from tfds_lidc import errors
from tfds_lidc.lidc_nodules import locks


def _lock_file(folder):
  """Where the lock of a config is while it is held."""
  with locks.exclusive(folder, 'paper'):
    (path,) = folder.iterdir()
  return path


def test_it_is_in_the_data_directory_while_it_is_held(tmp_path, monkeypatch):
  data_dir, elsewhere = tmp_path / 'data', tmp_path / 'tmp'
  data_dir.mkdir()
  elsewhere.mkdir()
  # Another folder for temporary files, as each job of a cluster has.
  monkeypatch.setenv('TMPDIR', str(elsewhere))
  with locks.exclusive(data_dir, 'paper'):
    (path,) = data_dir.iterdir()
    assert path.name.startswith('.')
    assert f'process {os.getpid()} on ' in path.read_text()
    with pytest.raises(errors.InputError, match='another process still builds'):
      with locks.exclusive(data_dir, 'paper', max_wait_s=0):
        pass
    # Another config, or another folder, has a lock of its own.
    with locks.exclusive(data_dir, 'all', max_wait_s=0):
      with locks.exclusive(elsewhere, 'paper', max_wait_s=0):
        pass
  assert not list(data_dir.iterdir()) + list(elsewhere.iterdir())


def test_a_failed_build_leaves_no_lock(tmp_path):
  with pytest.raises(KeyError):
    with locks.exclusive(tmp_path, 'paper'):
      raise KeyError
  assert not list(tmp_path.iterdir())


def test_who_waits_reads_who_builds(tmp_path, capsys):
  begun, go_on = threading.Event(), threading.Event()

  def hold():
    with locks.exclusive(tmp_path, 'paper'):
      begun.set()
      assert go_on.wait(60)

  def wait():
    with locks.exclusive(tmp_path, 'paper'):
      return True

  with futures.ThreadPoolExecutor() as pool:
    first = pool.submit(hold)
    assert begun.wait(60)
    second = pool.submit(wait)
    with pytest.raises(futures.TimeoutError):
      second.result(timeout=0.2)
    go_on.set()
    first.result(60)
    assert second.result(60)
  (line,) = capsys.readouterr().out.splitlines()
  assert f'(process {os.getpid()} on ' in line
  assert line.endswith('waiting for it.')


def test_a_line_names_whoever_holds_it_for_too_long(tmp_path):
  path = _lock_file(tmp_path)
  # Of a stranger, whose text would colour a terminal.
  path.write_bytes(b'mtnet_jax lock: \x1b[31mme\n')
  with path.open() as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    with pytest.raises(errors.InputError, match='choose another') as e:
      with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
        pass
  assert '\N{REPLACEMENT CHARACTER}[31mme' in str(e.value)
  assert '\x1b' not in str(e.value)


@pytest.mark.parametrize('kind', ('link', 'second name', 'folder', 'pipe'))
def test_what_is_no_file_of_its_own_is_refused(tmp_path, kind):
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


def test_a_file_that_no_build_wrote_stays_as_it_is(tmp_path):
  path = _lock_file(tmp_path)
  path.write_text('notes')
  with locks.exclusive(tmp_path, 'paper'):
    with pytest.raises(errors.InputError, match='process unknown'):
      with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
        pass
  assert path.read_text() == 'notes'


def test_what_a_killed_build_left_is_taken_over(tmp_path):
  path = _lock_file(tmp_path)
  path.write_text('mtnet_jax lock: process 1 on another, since long ago\n')
  with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
    assert f'process {os.getpid()} on' in path.read_text()
  assert not path.exists()


def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
  """Whoever locks a file that its holder has just removed tries again."""
  flock, found = fcntl.flock, []

  def late(descriptor, flags):
    flock(descriptor, flags)
    if not found:
      (path,) = tmp_path.iterdir()
      path.unlink()
      found.append(path)

  monkeypatch.setattr(fcntl, 'flock', late)
  with locks.exclusive(tmp_path, 'paper'):
    assert list(tmp_path.iterdir()) == found


@pytest.mark.skipif(not os.getuid(), reason='root may open any file')
def test_another_user_s_can_be_locked(tmp_path):
  path = _lock_file(tmp_path)
  path.write_text('mtnet_jax lock: process 1\n')
  path.chmod(0o444)
  with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
    with pytest.raises(errors.InputError, match='still builds'):
      with locks.exclusive(tmp_path, 'paper', max_wait_s=0):
        pass


@pytest.mark.parametrize('number', (errno.ENOLCK, errno.ENOSYS))
def test_a_file_system_without_locks_is_told(
  tmp_path, monkeypatch, capsys, number
):
  def flock(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', flock)
  with locks.exclusive(tmp_path, 'paper'):
    pass
  assert 'has no locks' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
