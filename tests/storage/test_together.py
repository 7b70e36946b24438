"""A set of files is replaced as a whole, also after a kill at any step."""

import json
import os
import signal
import subprocess
import sys

import pytest

from mtnet_jax.storage import together
from mtnet_jax.system import errors
from tfds_lidc.folder_swap import swap

_INDEX = 'index.json'
_OLD = {'a.png': 'old', 'gone.png': 'old', 'page.html': 'old'}
_NEW = {'a.png': 'new', 'more.png': 'new', 'page.html': 'new'}
_USERS = {'notes.txt': 'mine', 'other.png': 'mine'}

# Writes _NEW, and kills itself at the n-th change of a name or folder.
_KILLED = """
import os, pathlib, shutil, signal, sys
from mtnet_jax.storage import together
import test_together
folder, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def dying(function):
  def call(*args, **kwargs):
    global left
    left -= 1
    if left < 0:
      os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)
  return call
for owner, name in (
  (os, 'replace'), (os, 'rmdir'), (os, 'mkdir'), (shutil, 'rmtree')
):
  setattr(owner, name, dying(getattr(owner, name)))
if sys.argv[3:]:
  together.mend(folder, 'index.json')
else:
  test_together.write(folder, test_together._NEW)
"""


def _own(folder):
  path = folder / _INDEX
  return (
    [_INDEX, *json.loads(path.read_text())['files']] if path.is_file() else []
  )


def write(folder, texts):
  with together.together(folder, _INDEX, _own) as staged:
    for name, text in texts.items():
      (staged / name).write_text(text)
    index = {'files': list(texts), 'of': texts['a.png']}
    (staged / _INDEX).write_text(json.dumps(index))


def _folder(path):
  path.mkdir()
  write(path, _OLD)
  for name, text in _USERS.items():
    (path / name).write_text(text)
  return path


def _visible(folder):
  return {
    path.name: path.read_text()
    for path in folder.iterdir()
    if not path.name.startswith('.')
  }


def _whole(texts):
  index = {'files': list(texts), 'of': texts['a.png']}
  return {**texts, **_USERS, _INDEX: json.dumps(index)}


def _dies(folder, after, *flags):
  """Returns whether the process was killed before it finished."""
  path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
  done = subprocess.run(
    [sys.executable, '-c', _KILLED, folder, str(after), *flags],
    env={**os.environ, 'PYTHONPATH': path},
    check=False,
  )
  assert done.returncode in (0, -signal.SIGKILL)
  return done.returncode != 0


def test_new_files_replace_those_of_the_index_and_no_others(tmp_path):
  folder = _folder(tmp_path / 'out')
  assert _visible(folder) == _whole(_OLD)
  write(folder, _NEW)
  assert _visible(folder) == _whole(_NEW)
  assert {path.name for path in folder.iterdir()} == _whole(_NEW).keys()


@pytest.mark.parametrize('after', range(16))
def test_a_failure_at_any_step_leaves_one_set(tmp_path, monkeypatch, after):
  folder = _folder(tmp_path / 'out')
  left, replace = after, os.replace

  def full(*args):
    nonlocal left
    left -= 1
    if left < 0:
      raise OSError(28, 'No space left on device')
    replace(*args)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', full)
    try:
      write(folder, _NEW)
    except errors.InputError:
      # Neither an index nor a page is beside files of another set.
      found = _visible(folder)
      for name in ('page.html', _INDEX):
        if name in found:
          whole = _whole(_OLD if 'gone.png' in found else _NEW)
          assert {
            k: v for k, v in whole.items() if k != _INDEX
          }.items() <= found.items()
  together.mend(folder, _INDEX)
  # Five old names are moved out before the new ones are ready.
  assert _visible(folder) == _whole(_OLD if after <= 5 else _NEW)
  assert {path.name for path in folder.iterdir()} == _visible(folder).keys()


def test_kills_leave_the_old_or_the_new(tmp_path):
  ends = []
  # Steps 0 to 13: steps 2 to 6 move out, 7 commits, and 8 to 11 move in.
  for after in (4, 7, 8, 11, 13):
    folder = _folder(tmp_path / str(after))
    assert _dies(folder, after)
    # It is killed again while it mends the folder.
    _dies(folder, 1, 'mend')
    together.mend(folder, _INDEX)
    found = _visible(folder)
    assert found in (_whole(_OLD), _whole(_NEW))
    ends.append(found['a.png'])
    assert {path.name for path in folder.iterdir()} == found.keys()
  assert ends == ['old', 'old', 'new', 'new', 'new']


def test_a_folder_swap_leaves_a_killed_replacement_alone(tmp_path):
  """It must not take the hidden folders for its own backups."""
  # While files move out, when all are out, and while the new ones move in.
  for after in (4, 8, 11):
    folder = _folder(tmp_path / str(after))
    assert _dies(folder, after)
    before = {path: path.is_dir() for path in folder.rglob('*')}
    assert any(is_folder for is_folder in before.values())
    swap.mend_all(folder)
    swap.remove_leftovers(folder)
    swap.remove_leftovers(folder, _INDEX)
    assert {path: path.is_dir() for path in folder.rglob('*')} == before
    together.mend(folder, _INDEX)
    assert _visible(folder) == _whole(_OLD if after < 8 else _NEW)


@pytest.mark.parametrize('name', ('more.png', 'page.html', _INDEX))
@pytest.mark.parametrize('link', (False, True))
def test_a_file_that_no_earlier_use_wrote_stays(tmp_path, name, link):
  path = tmp_path / name
  if link:
    path.symlink_to('nowhere')
  else:
    path.write_text('mine')
  with pytest.raises(
    errors.InputError, match=f'{name} has the name of a result'
  ):
    with together.together(tmp_path, _INDEX, lambda folder: ['a.png']) as new:
      for each in (*_NEW, _INDEX):
        (new / each).write_text('new')
  assert [found.name for found in tmp_path.iterdir()] == [name]
  assert path.is_symlink() if link else path.read_text() == 'mine'


def test_without_own_only_files_with_new_names_are_replaced(tmp_path):
  """The index there is not trusted: anyone may have written it."""
  (tmp_path / _INDEX).write_text('{"files": ["notes.txt"]}')
  (tmp_path / 'notes.txt').write_text('mine')
  with together.together(tmp_path, _INDEX) as staged:
    (staged / _INDEX).write_text('new')
  assert _visible(tmp_path) == {_INDEX: 'new', 'notes.txt': 'mine'}


@pytest.mark.parametrize(('after', 'name'), ((4, _INDEX), (8, 'more.png')))
def test_a_file_that_appears_in_between_is_not_replaced(tmp_path, after, name):
  """It is in the way of an old file, or of a new one."""
  folder = _folder(tmp_path / 'out')
  assert _dies(folder, after)
  (folder / name).write_text('mine')
  for _ in range(2):
    with pytest.raises(errors.InputError, match=f'{name} is in the way'):
      together.mend(folder, _INDEX)
    assert (folder / name).read_text() == 'mine'
  (folder / name).rename(tmp_path / 'mine')
  together.mend(folder, _INDEX)
  assert _visible(folder) == _whole(_OLD if after == 4 else _NEW)


def test_an_error_while_writing_changes_nothing(tmp_path):
  folder = _folder(tmp_path / 'out')
  with pytest.raises(KeyboardInterrupt):
    with together.together(folder, _INDEX) as staged:
      (staged / 'a.png').write_text('new')
      raise KeyboardInterrupt
  assert _visible(folder) == _whole(_OLD)


def test_a_users_folder_of_the_same_name_stays(tmp_path):
  folder = _folder(tmp_path / 'out')
  (folder / 'more.png').mkdir()
  (folder / 'more.png/own').write_text('mine')
  with pytest.raises(errors.InputError, match='more.png is a folder'):
    write(folder, _NEW)
  assert (folder / 'more.png/own').read_text() == 'mine'
  assert (folder / 'a.png').read_text() == 'old'


def test_a_second_writer_is_refused_and_no_file_stays(tmp_path):
  with together.one_writer(tmp_path):
    with pytest.raises(errors.BusyError, match='another --out'):
      with together.one_writer(tmp_path):
        pass
  assert not list(tmp_path.iterdir())
  with together.one_writer(tmp_path):
    pass


def test_the_lock_file_of_a_killed_writer_locks_nothing(tmp_path):
  (tmp_path / '.mtnet_jax-lock').write_text('')
  with together.one_writer(tmp_path):
    pass
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('there', (True, False))
def test_a_lock_that_is_a_link_is_not_followed(tmp_path, there):
  target = tmp_path / 'precious'
  if there:
    target.write_text('text')
  (tmp_path / '.mtnet_jax-lock').symlink_to(target)
  with pytest.raises(errors.InputError, match='cannot be locked'):
    with together.one_writer(tmp_path):
      pass
  assert target.exists() == there
  assert not there or target.read_text() == 'text'


def test_a_lock_that_is_a_pipe_does_not_hang(tmp_path):
  os.mkfifo(tmp_path / '.mtnet_jax-lock')
  with pytest.raises(
    errors.InputError, match='it is a special file or a hard link'
  ):
    with together.one_writer(tmp_path):
      pass
