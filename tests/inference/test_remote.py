"""A bucket is downloaded into one folder, within limits."""

import pathlib

import fsspec
from fsspec.implementations import memory
import pytest

from mtnet_jax.inference import remote
from mtnet_jax.system import errors


@pytest.fixture
def bucket():
  """Yields a function that puts a file into memory://, for one test."""
  filesystem = fsspec.filesystem('memory')

  def put(name, data):
    # Object stores have no folders: they do not normalise names.
    filesystem.store[name] = memory.MemoryFile(filesystem, name, data)

  yield put
  filesystem.store.clear()


def test_names_with_parent_folders_are_skipped(bucket, tmp_path, monkeypatch):
  bucket('/bucket/run/config.json', b'{}')
  bucket('/bucket/run/checkpoints/../../escaped', b'evil')
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  with remote.local_folder(
    'memory://bucket/run', wanted=lambda name: True
  ) as folder:
    found = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert found == [pathlib.Path(folder, 'config.json')]


@pytest.mark.parametrize('listed_bytes', [20, None, 1])
@pytest.mark.parametrize('limit', ['_MAX_FILES', '_MAX_BYTES'])
def test_a_download_is_bounded(bucket, monkeypatch, listed_bytes, limit):
  """Two files of 20 bytes together exceed the limits, for any listed size."""
  bucket('/bucket/run/config.json', b'0123456789')
  bucket('/bucket/run/metrics.json', b'0123456789')
  monkeypatch.setattr(remote, limit, 1 if limit == '_MAX_FILES' else 19)
  ls = memory.MemoryFileSystem.ls

  def ls_with_size(*args, **kwargs):
    size = listed_bytes and listed_bytes // 2
    return [
      {**x, 'size': size} if x['type'] == 'file' else x
      for x in ls(*args, **{**kwargs, 'detail': True})
    ]

  monkeypatch.setattr(memory.MemoryFileSystem, 'ls', ls_with_size)
  with pytest.raises(errors.InputError, match='more than'):
    with remote.local_folder('memory://bucket/run', wanted=lambda name: True):
      pass
  with remote.local_folder(
    'memory://bucket/run', wanted=lambda name: name == 'config.json'
  ) as folder:
    assert (folder / 'config.json').read_bytes() == b'0123456789'


def test_an_endless_listing_is_refused(bucket, monkeypatch):
  """Folders and files that are not wanted count as well."""
  listed, ls = [], memory.MemoryFileSystem.ls

  def endless(filesystem, path, **kwargs):
    listed.append(path)
    return [
      {'name': f'{path}/{x}', 'size': 0, 'type': 'directory'} for x in 'ab'
    ]

  monkeypatch.setattr(memory.MemoryFileSystem, 'ls', endless)
  monkeypatch.setattr(remote, '_MAX_LISTED', 50)
  with pytest.raises(errors.InputError, match='lists more than 50 names'):
    with remote.local_folder('memory://bucket/run', wanted=lambda name: False):
      pass
  assert len(listed) < 50
  monkeypatch.setattr(memory.MemoryFileSystem, 'ls', ls)
  bucket('/bucket/run/config.json', b'{}')
  with remote.local_folder('memory://bucket/run', wanted=bool) as folder:
    assert (folder / 'config.json').exists()
