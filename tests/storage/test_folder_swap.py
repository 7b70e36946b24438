"""Replacing a folder leaves the old or the new one, whenever it stops."""

import concurrent.futures
import errno
import fcntl
import os
import pathlib
import stat
import subprocess
import sys
import time

from faults import interrupted
import main_job
import pytest

from tfds_lidc.folder_swap import lock_file
from tfds_lidc.folder_swap import locks
from tfds_lidc.folder_swap import staged as staged_lib
from tfds_lidc.folder_swap import swap

_OLD, _NEW = ({'a': text, 'b/c': text} for text in ('old', 'new'))

# Replaces a folder with an injected fault; prints the number of changes made.
_REPLACE = """
import pathlib, sys, types
from faults import interrupted
# Skips the package itself, which registers the dataset and takes a second.
package = types.ModuleType('tfds_lidc')
package.__path__ = [next(p for p in sys.path if p.endswith('/tfds_lidc'))]
sys.modules['tfds_lidc'] = package
from tfds_lidc.folder_swap import swap
fault, at, target = sys.argv[1:]
parent = pathlib.Path(target).parent
interruption = interrupted.Interruption(fault, int(at), parent)
try:
  with swap.replaced(target) as folder:
    (folder / 'a').write_text('new')
    (folder / 'b').mkdir()
    (folder / 'b' / 'c').write_text('new')
finally:
  print(len(interruption.calls))
"""
_FOLDERS = [str(main_job.ROOT / name) for name in ('', 'tests', 'tfds_lidc')]


def _fill(folder, tree):
  for name, text in tree.items():
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _tree(folder):
  return {
    str(path.relative_to(folder)): path.read_text()
    for path in folder.rglob('*')
    if path.is_file()
  }


def _replace(fault, at, target):
  done = subprocess.run(
    [sys.executable, '-S', '-c', _REPLACE, fault, str(at), str(target)],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(_FOLDERS)},
  )
  assert done.returncode in (0, 1, interrupted.KILLED, -2, 130), done.stderr
  return done


@pytest.mark.parametrize('fault', interrupted.FAULTS)
def test_any_change_may_fail(tmp_path, fault):
  """The old or the new folder is there, and the next try gives the new one."""
  seen = []
  for at in range(1, 100):
    target = tmp_path / f'{fault}{at}' / 'report'
    _fill(target, _OLD)
    done = _replace(fault, at, target)
    if fault in ('full', 'ctrl-c'):  # The process could still clean up.
      assert _tree(target) in (_OLD, _NEW)
    swap.mend(target)
    seen.append(_tree(target))
    assert seen[-1] in (_OLD, _NEW), at
    # Some faults come too late to do harm.
    if done.returncode == 0:
      assert seen[-1] == _NEW
    with swap.replaced(target) as folder:
      _fill(folder, _NEW)
    assert _tree(target) == _NEW
    assert os.listdir(target.parent) == ['report'], at
    if done.stdout and int(done.stdout) < at:
      break
  else:
    raise AssertionError(done.stderr)
  # There were faults before and after the renames.
  assert len(seen) > 10 and _OLD in seen and _NEW in seen


def _killed(target, *, before_the_second=True):
  """Leaves the state of a process that was killed between or after renames."""
  old = target.with_name(f'.{target.name}.mtnet_jax-old')
  os.rename(target, old)
  if not before_the_second:
    _fill(target, _NEW)
  return old


def test_a_reader_restores_the_old_folder_once(tmp_path):
  target = tmp_path / 'report'
  assert not swap.mend(target)
  _fill(target, _OLD)
  _killed(target)
  assert swap.mend(target) and not swap.mend(target)
  assert _tree(target) == _OLD and os.listdir(tmp_path) == ['report']


def test_a_reader_waits_for_a_writer_between_its_renames(tmp_path):
  target = tmp_path / 'report'
  _fill(target, _OLD)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    with locks.alone_in(tmp_path):
      _killed(target)
      reader = pool.submit(swap.mend, target)
      time.sleep(0.1)
      assert not reader.done() and not target.exists()
      _fill(target, _NEW)
    assert reader.result(60) is False
  assert _tree(target) == _NEW


@pytest.fixture
def nfs(monkeypatch):
  """A file system on which no folder can be locked."""
  flock = fcntl.flock

  def of_files(descriptor, operation):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
      raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    flock(descriptor, operation)

  monkeypatch.setattr(fcntl, 'flock', of_files)


def test_a_reader_waits_for_a_writer_on_nfs(tmp_path, nfs):
  test_a_reader_waits_for_a_writer_between_its_renames(tmp_path)
  assert not (tmp_path / '.mtnet_jax-swap').exists()


def test_a_lock_file_on_nfs_without_a_holder_is_taken_over(tmp_path, nfs):
  with locks.alone_in(tmp_path):
    (path,) = tmp_path.iterdir()
  path.write_text('mtnet_jax lock: process 1')  # without a holder
  _fill(tmp_path / 'report', _OLD)
  with swap.replaced(tmp_path / 'report') as folder:
    _fill(folder, _NEW)
  assert _tree(tmp_path / 'report') == _NEW
  assert os.listdir(tmp_path) == ['report']


@pytest.mark.parametrize('number', (errno.ENOSPC, errno.EACCES, errno.ELOOP))
def test_a_folder_is_mended_if_that_lock_cannot_be_created(
  tmp_path, nfs, monkeypatch, number
):
  target = tmp_path / 'report'
  _fill(target, _OLD)
  _killed(target)

  def refused(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(lock_file, '_open', refused)
  assert swap.mend(target)
  assert _tree(target) == _OLD


def test_a_lock_of_a_stranger_is_not_awaited_forever(tmp_path, monkeypatch):
  monkeypatch.setattr(locks, '_MAX_WAIT_S', 0.05)
  with locks.alone_in(tmp_path):
    with pytest.raises(TimeoutError, match=f'has locked {tmp_path}'):
      with swap.replaced(tmp_path / 'report'):
        pass
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize('before_the_second', (True, False))
def test_the_next_writer_keeps_the_old_or_the_new_folder(
  tmp_path, before_the_second
):
  target = tmp_path / 'report'
  _fill(target, _OLD)
  _killed(target, before_the_second=before_the_second)
  swap.remove_leftovers(tmp_path)
  assert _tree(target) == (_OLD if before_the_second else _NEW)
  assert os.listdir(tmp_path) == ['report']


def test_only_own_leftovers_without_an_owner_are_removed(tmp_path):
  """Folders of users and of earlier versions stay, and so do links."""
  kept = [
    '.venv.312/bin',
    '.report.12.old/a',
    '.backup.2024/a',
    '.x.mtnet_jax-1/a',
    # Without a lock and not empty: it may belong to the user.
    '.x.mtnet_jax-0123456789abcdef/a',
    '.lock',
    'records.csv',
  ]
  _fill(tmp_path, dict.fromkeys(kept, 'mine'))
  elsewhere = tmp_path / 'elsewhere'
  _fill(elsewhere, {'.lock': '', 'a': 'mine'})
  link = tmp_path / '.y.mtnet_jax-0123456789abcdef'
  link.symlink_to(elsewhere)
  (tmp_path / '.z.mtnet_jax-0123456789abcdef').mkdir()  # as after an early kill
  dead, lock = staged_lib.make(tmp_path, 'dead')
  _fill(dead, {'new/a': 'half'})
  os.close(lock)  # as the system does when a process ends
  unfinished = tmp_path / '.records.csv.mtnet_jax-0123456789abcdef'
  unfinished.write_text('half')
  with staged_lib.folder(tmp_path, 'alive') as folder:
    with staged_lib.file(tmp_path / 'alive.csv') as file:
      swap.remove_leftovers(tmp_path)
      assert folder.exists() and file.exists()
  assert link.is_symlink()
  link.unlink()
  expected = {**dict.fromkeys(kept, 'mine'), 'elsewhere/a': 'mine'}
  assert _tree(tmp_path) == {**expected, 'elsewhere/.lock': ''}
  assert not list(tmp_path.glob('.[dz]*'))


def test_what_is_not_a_backup_stays(tmp_path):
  """Names that no backup has; a file and a link with the name of a backup."""
  names = [f'{x}.mtnet_jax-old' for x in ('.', '..', '...', 'report')]
  for name in names:
    _fill(tmp_path / name, _OLD)
  (tmp_path / '.file.mtnet_jax-old').write_text('mine')
  (tmp_path / '.link.mtnet_jax-old').symlink_to(tmp_path / names[-1])
  before = _tree(tmp_path)
  swap.mend_all(tmp_path)
  swap.remove_leftovers(tmp_path)
  assert _tree(tmp_path) == before
  assert sorted(os.listdir(tmp_path)) == sorted(
    [*names, '.file.mtnet_jax-old', '.link.mtnet_jax-old']
  )


def test_the_target_of_a_link_is_replaced_in_its_own_folder(tmp_path):
  target, link = tmp_path / 'disk' / 'report', tmp_path / 'run' / 'report'
  _fill(target, _OLD)
  link.parent.mkdir()
  link.symlink_to(target)
  with swap.replaced(link) as folder:
    _fill(folder, _NEW)
    assert folder.is_relative_to(tmp_path / 'disk')
  assert link.is_symlink() and _tree(target) == _NEW
  _killed(target)
  assert swap.mend(link) and _tree(target) == _NEW


def test_a_read_only_folder_is_replaced(tmp_path):
  """Its files are deleted."""
  target = tmp_path / 'report'
  _fill(target, _OLD)
  (target / 'b').chmod(0o500)
  target.chmod(0o500)
  with swap.replaced(target) as folder:
    _fill(folder, _NEW)
  assert _tree(target) == _NEW and os.listdir(tmp_path) == ['report']


def test_a_backup_that_cannot_be_moved_stops_the_next(tmp_path, monkeypatch):
  """It may hold a mount point: nothing is lost, and the message names it."""
  target = tmp_path / 'report'
  _fill(target, _NEW)
  old = tmp_path / '.report.mtnet_jax-old'
  _fill(old, _OLD)
  rename = os.rename

  def busy(source, destination):
    if source == old:
      raise OSError(16, 'Device or resource busy')
    rename(source, destination)

  monkeypatch.setattr(os, 'rename', busy)
  with pytest.raises(OSError, match=r'\.report\.mtnet_jax-old is left over'):
    with swap.replaced(target) as folder:
      _fill(folder, _NEW)
  assert _tree(target) == _NEW and _tree(old) == _OLD


def test_a_new_folder_overwrites_nothing(tmp_path):
  target = tmp_path / 'bundle'
  with pytest.raises(OSError, match='not empty'):
    with swap.created(target) as folder:
      _fill(folder, _NEW)
      _fill(target, _OLD)  # another process was faster
  assert _tree(target) == _OLD and os.listdir(tmp_path) == ['bundle']


@pytest.mark.parametrize('name', ('n' * 250, 'ä' * 120))
def test_long_names(tmp_path, name):
  target = tmp_path / name
  for tree in (_OLD, _NEW):
    with swap.replaced(target) as folder:
      _fill(folder, tree)
  os.rename(target, swap._backup(target))
  swap.remove_leftovers(tmp_path)  # cannot tell its name, and leaves it
  assert swap.mend(target)
  assert _tree(target) == _NEW and os.listdir(tmp_path) == [name]
