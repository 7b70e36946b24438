"""Files of a run are whole or not there."""

import json
import os
import pathlib

import pytest

from mtnet_jax import errors
from mtnet_jax import files


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


def test_csv_has_every_column_and_quotes(tmp_path):
  path = tmp_path / 'log.csv'
  files.write_csv(
    path, [{'stage': 'coarse', 'loss': 0.5}, {'stage': 'a,b', 'auc': 1}]
  )
  assert path.read_text() == 'stage,loss,auc\ncoarse,0.5,\n"a,b",,1\n'
