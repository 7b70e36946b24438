"""Files of a run are complete or absent."""

import json
import os
import pathlib
import sys

import main_job
import pytest

from mtnet_jax.evaluation import finished_run
from mtnet_jax.storage import files
from mtnet_jax.storage import seen
from mtnet_jax.system import errors
from tfds_lidc.folder_swap import staged as staged_lib


def test_json_round_trip(tmp_path):
  path = tmp_path / 'metrics.json'
  tree = {'value': 0.1 + 0.2, 'ci95': [None, 1], 'name': 'Gröbner'}
  files.write_json(path, tree)
  assert files.read_json(path) == tree
  assert path.read_text(encoding='utf-8').endswith('}\n')


def test_writing_replaces_and_leaves_nothing_else(tmp_path):
  path = tmp_path / 'a.txt'
  files.write_text(path, 'old and long')
  files.write_text(path, 'new')
  assert path.read_text() == 'new'
  assert os.listdir(tmp_path) == ['a.txt']


def _disk_full(*unused_args, **unused_kwargs):
  raise OSError(28, 'No space left on device')


def _write_half(self, data):
  with open(self, 'wb') as file:
    file.write(data[: len(data) // 2])
  _disk_full()


@pytest.mark.parametrize(
  'owner, name, broken',
  (
    (os, 'replace', _disk_full),
    (pathlib.Path, 'write_bytes', _write_half),
  ),
)
def test_failing_to_write_leaves_the_old_file(
  tmp_path, monkeypatch, owner, name, broken
):
  path = tmp_path / 'metrics.json'
  files.write_text(path, 'old')
  with monkeypatch.context() as patched:
    patched.setattr(owner, name, broken)
    with pytest.raises(errors.InputError, match='metrics.json.*No space'):
      files.write_text(path, 'new and longer')
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['metrics.json']


def test_a_missing_folder_is_an_input_error(tmp_path):
  with pytest.raises(errors.InputError, match='nowhere/a.txt'):
    files.write_text(tmp_path / 'nowhere' / 'a.txt', 'text')


@pytest.mark.parametrize('value', (float('nan'), float('inf')))
def test_nan_is_refused_and_leaves_the_old_file(tmp_path, value):
  path = tmp_path / 'metrics.json'
  files.write_json(path, {'value': 1})
  with pytest.raises(ValueError, match='JSON'):
    files.write_json(path, {'value': value})
  assert json.loads(path.read_text()) == {'value': 1}


@pytest.mark.parametrize('content', (b'{"value": 1', b'', b'\xff\xfe{}'))
def test_damaged_json_is_an_input_error_with_its_path(tmp_path, content):
  path = tmp_path / 'config.json'
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match='config.json is damaged'):
    files.read_json(path)


def test_missing_json_is_an_input_error_with_its_path(tmp_path):
  with pytest.raises(errors.InputError, match='config.json cannot be read'):
    files.read_json(tmp_path / 'config.json')


def test_a_file_larger_than_anyone_writes_is_refused_unread(tmp_path):
  """A sparse file of 1 TiB."""
  with (tmp_path / 'large.json').open('wb') as file:
    file.truncate(1 << 40)
  with pytest.raises(errors.InputError, match='large.json.* over 64 MiB'):
    files.read_json(tmp_path / 'large.json')


# Readers of files in strangers' runs and bundles.
_READERS = {
  'config.json': files.read_json,
  'seen.csv': seen.read,
  'train_log.csv': finished_run.read_csv,
}


@pytest.mark.parametrize('name', _READERS)
@pytest.mark.parametrize(
  'make',
  (
    os.mkfifo,
    lambda path: path.symlink_to('/dev/zero'),
    lambda path: path.symlink_to('/dev/null'),
    lambda path: path.symlink_to(f'/proc/self/fd/{os.pipe()[0]}'),
  ),
  ids=('pipe', 'endless', 'empty', 'open pipe'),
)
def test_only_regular_files_are_read_and_others_never_block(
  tmp_path, make, name
):
  """A pipe without a writer would block a reader forever."""
  path = tmp_path / name
  make(path)
  with pytest.raises(errors.InputError, match=f'{name}.* not a regular file'):
    _READERS[name](path)


def test_a_link_to_a_file_is_read(tmp_path):
  (tmp_path / 'a.json').write_text('[3]')
  (tmp_path / 'b.json').symlink_to('a.json')
  assert files.read_json(tmp_path / 'b.json') == [3]


def test_csv_has_every_column_and_quotes(tmp_path):
  path = tmp_path / 'log.csv'
  files.write_csv(
    path, [{'stage': 'coarse', 'loss': 0.5}, {'stage': 'a,b', 'auc': 1}]
  )
  assert path.read_text() == 'stage,loss,auc\ncoarse,0.5,\n"a,b",,1\n'


def _tree(folder):
  return {path.name: path.read_text() for path in folder.rglob('*.txt')}


def test_a_replaced_folder_shows_the_old_one_until_it_is_complete(tmp_path):
  path = tmp_path / 'report'
  for text in ('first', 'second'):
    with files.replaced_folder(path) as folder:
      (folder / 'a.txt').write_text(text)
      before = _tree(path) if path.exists() else {}
      assert before == ({} if text == 'first' else {'a.txt': 'first'})
    assert _tree(path) == {'a.txt': text}
  assert os.listdir(tmp_path) == ['report']


@pytest.mark.parametrize('error', (KeyboardInterrupt, ValueError))
def test_an_interrupted_replacement_changes_nothing(tmp_path, error):
  path = tmp_path / 'report'
  with files.replaced_folder(path) as folder:
    (folder / 'a.txt').write_text('old')
  with pytest.raises(error), files.replaced_folder(path) as folder:
    (folder / 'a.txt').write_text('new')
    raise error
  assert _tree(path) == {'a.txt': 'old'}
  assert os.listdir(tmp_path) == ['report']


def test_the_old_folder_is_restored_if_the_new_one_cannot_be_moved(
  tmp_path, monkeypatch
):
  path = tmp_path / 'report'
  with files.replaced_folder(path) as folder:
    (folder / 'a.txt').write_text('old')
  rename = os.rename

  def fail_at_the_end(source, target):
    if pathlib.Path(target) == path and not str(source).endswith('-old'):
      _disk_full()
    rename(source, target)

  monkeypatch.setattr(os, 'rename', fail_at_the_end)
  with pytest.raises(errors.InputError, match='report cannot be written'):
    with files.replaced_folder(path) as folder:
      (folder / 'a.txt').write_text('new')
  assert _tree(path) == {'a.txt': 'old'}
  assert os.listdir(tmp_path) == ['report']


_SPELL = """
import os, sys
from mtnet_jax.evaluation import finished_run
from mtnet_jax.storage import files
from mtnet_jax.storage import seen
from mtnet_jax.system import errors
from tfds_lidc.folder_swap import staged as staged_lib
for path in sys.argv[1:]:
  try:
    files.check_spelling(path)
    print('fine')
  except errors.InputError as error:
    print(errors.one_line(error).encode('ascii', 'replace').decode())
"""


@pytest.mark.parametrize('utf8', ('0', '1'))
def test_paths_that_libraries_would_misspell(tmp_path, utf8):
  """Tensorstore has no name for what an ASCII locale cannot spell."""
  done = main_job.run(
    [sys.executable, '-c', _SPELL, 'runs/a', 'runs/Läufe'],
    PYTHONUTF8=utf8,
    PYTHONCOERCECLOCALE='0',
    LC_ALL='C',
  )
  assert done.returncode == 0, done.stderr
  plain, umlaut = done.stdout.splitlines()
  assert plain == 'fine'
  assert (umlaut == 'fine') == (utf8 == '1')
  assert utf8 == '1' or 'set PYTHONUTF8=1' in umlaut


def test_a_name_that_is_no_utf8_is_refused():
  with pytest.raises(errors.InputError, match='rename it'):
    files.check_spelling(os.fsdecode(b'runs/L\xe4ufe'))


def test_the_working_directory_is_not_replaced(tmp_path, monkeypatch):
  """The user's shell would be left in a deleted folder."""
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.InputError, match='is the working directory'):
    with files.new_folder('.'):
      pass


def test_what_was_left_beside_an_existing_folder_is_removed(tmp_path):
  """A process leaves it if it is killed right after it moved the folder."""
  left, lock = staged_lib.make(tmp_path, 'out')
  os.close(lock)
  (tmp_path / 'out' / 'a').mkdir(parents=True)
  with pytest.raises(errors.InputError, match='exists already'):
    with files.new_folder(tmp_path / 'out'):
      pass
  assert not left.exists()


@pytest.mark.parametrize(
  'text', ('[' * 100_000, '{"a":' * 100_000, '{', '\xff')
)
def test_deeply_nested_or_truncated_json_is_damage(tmp_path, text):
  path = tmp_path / 'x.json'
  path.write_bytes(text.encode('latin-1'))
  with pytest.raises(errors.InputError, match='x.json is damaged'):
    files.read_json(path)
