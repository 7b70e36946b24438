"""What a bucket holds is written into one folder, and nowhere else."""

import pathlib

import fsspec
from fsspec.implementations import memory
import pytest

from mtnet_jax.inference import remote


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
