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


@pytest.mark.parametrize('said', [True, False])
@pytest.mark.parametrize('limit', ['_MAX_FILES', '_MAX_BYTES'])
def test_a_download_is_bounded(bucket, monkeypatch, said, limit):
  """Two files of 20 bytes in all, with a bound below."""
  bucket('/bucket/run/config.json', b'0123456789')
  bucket('/bucket/run/metrics.json', b'0123456789')
  monkeypatch.setattr(remote, limit, 1 if limit == '_MAX_FILES' else 19)
  if not said:
    find = memory.MemoryFileSystem.find

    def unsized(*args, **kwargs):
      found = find(*args, **kwargs)
      return {name: {**entry, 'size': None} for name, entry in found.items()}

    monkeypatch.setattr(memory.MemoryFileSystem, 'find', unsized)
  with pytest.raises(errors.InputError, match='more than'):
    with remote.local_folder('memory://bucket/run', wanted=lambda name: True):
      pass
  with remote.local_folder(
    'memory://bucket/run', wanted=lambda name: name == 'config.json'
  ) as folder:
    assert (folder / 'config.json').read_bytes() == b'0123456789'
