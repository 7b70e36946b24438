"""What a bucket holds is written into one folder, and nowhere else."""

import pathlib

import fsspec
from fsspec.implementations import memory
import pytest

from mtnet_jax.inference import remote
from mtnet_jax.system import errors


@pytest.fixture
def bucket():
  """Contents of memory://, path -> bytes; taken away afterwards."""
  filesystem = fsspec.filesystem('memory')

  def put(name, data):
    # As object stores do, which know no folders: names stay as they are.
    filesystem.store[name] = memory.MemoryFile(filesystem, name, data)

  yield put
  filesystem.store.clear()


def test_names_that_climb_are_left_out(bucket, tmp_path, monkeypatch):
  bucket('/bucket/run/config.json', b'{}')
  bucket('/bucket/run/checkpoints/../../escaped', b'evil')
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  with remote.local_folder(
    'memory://bucket/run', wanted=lambda name: True
  ) as folder:
    found = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert found == [pathlib.Path(folder, 'config.json')]


@pytest.mark.parametrize('said', [20, None, 1])
@pytest.mark.parametrize('limit', ['_MAX_FILES', '_MAX_BYTES'])
def test_a_download_is_bounded(bucket, monkeypatch, said, limit):
  """Two files of 20 bytes in all, with a bound below, whatever is said."""
  bucket('/bucket/run/config.json', b'0123456789')
  bucket('/bucket/run/metrics.json', b'0123456789')
  monkeypatch.setattr(remote, limit, 1 if limit == '_MAX_FILES' else 19)
  ls = memory.MemoryFileSystem.ls

  def saying(*args, **kwargs):
    return [
      {**x, 'size': said and said // 2} if x['type'] == 'file' else x
      for x in ls(*args, **{**kwargs, 'detail': True})
    ]

  monkeypatch.setattr(memory.MemoryFileSystem, 'ls', saying)
  with pytest.raises(errors.InputError, match='more than'):
    with remote.local_folder('memory://bucket/run', wanted=lambda name: True):
      pass
  with remote.local_folder(
    'memory://bucket/run', wanted=lambda name: name == 'config.json'
  ) as folder:
    assert (folder / 'config.json').read_bytes() == b'0123456789'


def test_a_listing_without_end_is_left(bucket, monkeypatch):
  """What nobody wants costs names as well, as folders in folders do."""
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
