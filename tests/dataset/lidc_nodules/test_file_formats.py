"""TFRecord files beside array_record ones: the same records, both readable."""

import hashlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_lidc import build
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import file_formats
from tfds_lidc.lidc_nodules import lidc_nodules_dataset_builder
from tfds_lidc.lidc_nodules import locks

tf = pytest.importorskip('tensorflow', reason='needs the extra tf')

pytestmark = pytest.mark.extra

# Two files a split, so that the order of files counts.
_FEW = tfds.download.DownloadConfig(max_examples_per_split=5, num_shards=2)
_IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)
_OWN = 'phantom-size_3_to_9'
_RAW = tfds.decode.DeserializeMethod.RAW_BYTES


@pytest.fixture(scope='module')
def plain_dir(tmp_path_factory):
  """Two datasets of phantoms, in array_record only."""
  data_dir = tmp_path_factory.mktemp('plain')
  build.build('phantom', data_dir=data_dir, download_config=_FEW)
  build.build(
    'phantom', data_dir=data_dir, policy='size=3-9', download_config=_FEW
  )
  return data_dir


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory, plain_dir):
  """The same with TFRecord files."""
  data_dir = tmp_path_factory.mktemp('data') / 'both'
  shutil.copytree(plain_dir, data_dir)
  for policy in ('', 'size=3-9'):
    file_formats.add_tfrecord(
      build.build('phantom', data_dir=data_dir, policy=policy)
    )
  return data_dir


def _folder(data_dir, config='phantom'):
  # A changed policy keeps the version of the config that it changes.
  builder = lidc_nodules_dataset_builder.Builder
  version = builder.builder_configs['phantom'].version
  return data_dir / 'lidc_nodules' / config / str(version)


def _sums(folder):
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.iterdir()
  }


def _assert_same(records, others):
  count = 0
  for one, other in zip(records, others, strict=True):
    assert one.keys() == other.keys()
    for name, value in one.items():
      np.testing.assert_array_equal(value, other[name], err_msg=name)
      if isinstance(value, np.ndarray):
        assert value.dtype == other[name].dtype
    count += 1
  return count


@pytest.mark.parametrize('config', ['phantom', _OWN])
@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_same_records_in_the_same_order(plain_dir, data_dir, config, split):
  name = f'lidc_nodules/{config}'
  records = tfds.data_source(name, split=split, data_dir=plain_dir)
  loaded = tfds.load(
    name, split=split, data_dir=data_dir, read_config=_IN_ORDER
  )
  assert isinstance(loaded, tf.data.Dataset)
  assert _assert_same(records, tfds.as_numpy(loaded)) == 5
  # So does what is read from array_record now.
  again = tfds.data_source(name, split=split, data_dir=data_dir)
  assert _assert_same(records, again) == 5


def test_bytes_are_copied(data_dir):
  folder = _folder(data_dir)
  records = tfds.builder_from_directory(folder).as_data_source(
    'test', deserialize_method=_RAW
  )
  files = sorted(map(str, folder.glob('*-test.tfrecord-*-of-00002')))
  assert len(files) == 2
  copies = tf.data.TFRecordDataset(files).as_numpy_iterator()
  assert list(copies) == [records[i] for i in range(len(records))]


def test_the_array_record_files_stay(plain_dir, data_dir):
  before, after = _sums(_folder(plain_dir)), _sums(_folder(data_dir))
  changed = {name for name in before if before[name] != after[name]}
  assert changed == {'dataset_info.json'}
  added = after.keys() - before.keys()
  assert len(added) == 6 and all('.tfrecord-' in name for name in added)


def test_it_waits_for_a_build(plain_dir, monkeypatch):
  before = _sums(_folder(plain_dir))
  builder = build.build('phantom', data_dir=plain_dir)
  monkeypatch.setattr(locks, '_MAX_WAIT_S', 0)
  with locks.exclusive(plain_dir, 'phantom'):
    with pytest.raises(errors.InputError, match='another process still builds'):
      file_formats.add_tfrecord(builder)
  assert _sums(_folder(plain_dir)) == before


def test_records_are_counted_beside_the_others(data_dir, tmp_path):
  shutil.copytree(data_dir, tmp_path / 'data')
  first, second = sorted(
    _folder(tmp_path / 'data').glob('*-train.array_record-*')
  )
  shutil.copy(second, first)  # of 5 records, 2 and 3 or the other way round
  with pytest.raises(errors.InputError, match=r'has [23] records, .* says'):
    build.build('phantom', data_dir=tmp_path / 'data').as_data_source('train')


def test_one_builder_reads_both(data_dir):
  builder = build.build('phantom', data_dir=data_dir)
  for _ in range(2):
    records = builder.as_data_source('train')
    loaded = builder.as_dataset(split='train', read_config=_IN_ORDER)
    assert _assert_same(records, tfds.as_numpy(loaded)) == 5


def test_a_named_format_is_obeyed(data_dir):
  name = 'lidc_nodules/phantom'
  for file_format in ('tfrecord', 'array_record'):
    kwargs = {'file_format': file_format}
    builder = tfds.builder(name, data_dir=data_dir, **kwargs)
    assert builder.info.file_format.value == file_format
  with pytest.raises(ValueError, match='parquet'):
    tfds.builder(name, data_dir=data_dir, file_format='parquet')
  # What the card warns of. Once TFDS mends it, the warning can go.
  with pytest.raises(ValueError, match='already set'):
    tfds.builder(
      f'lidc_nodules/{_OWN}', data_dir=data_dir, file_format='array_record'
    )


def test_without_this_package(data_dir, tmp_path):
  """A copy of the folder is enough for TFDS alone, in both formats."""
  shutil.copytree(_folder(data_dir), tmp_path / 'copy')
  code = (
    'import sys, tensorflow_datasets as tfds\n'
    'builder = tfds.builder_from_directory(sys.argv[1])\n'
    'for records in ('
    ' tfds.as_numpy(builder.as_dataset("train")),'
    ' builder.as_data_source("train")):\n'
    '  print(len(list(records)), sum(int(r["mask"].sum()) for r in records))\n'
    'assert "tfds_lidc" not in sys.modules\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path / 'copy')],
    cwd=tmp_path,
    text=True,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  first, second = done.stdout.splitlines()
  assert first == second and first.startswith('5 ')


def test_the_command_adds_them_without_ct(plain_dir, tmp_path):
  shutil.copytree(plain_dir, tmp_path, dirs_exist_ok=True)
  for _ in range(2):  # the second time they are there
    done = subprocess.run(
      [sys.executable, '-m', 'tfds_lidc.build', '--config=phantom']
      + [f'--data_dir={tmp_path}', '--tfrecord'],
      text=True,
      capture_output=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'already built' in done.stdout and 'TFRecord' in done.stdout
  loaded = tfds.load(
    'lidc_nodules/phantom',
    split='train',
    data_dir=tmp_path,
    as_supervised=True,
  )
  image, label = next(iter(loaded))
  assert image.shape == (64, 64, 1) and image.dtype == tf.int16
  assert label.dtype == tf.int64


def test_what_fails_leaves_the_build(plain_dir, tmp_path, monkeypatch):
  shutil.copytree(plain_dir, tmp_path, dirs_exist_ok=True)
  before = _sums(_folder(tmp_path))
  write = file_formats.file_adapters.TfRecordFileAdapter.write_examples
  written = []

  def fail_late(path, records):
    written.append(path)
    if len(written) == 4:
      raise tf.errors.ResourceExhaustedError(None, None, 'no space left')
    write(path, records)

  monkeypatch.setattr(
    file_formats.file_adapters.TfRecordFileAdapter, 'write_examples', fail_late
  )
  builder = build.build('phantom', data_dir=tmp_path)
  with pytest.raises(errors.InputError, match='no space left') as e:
    file_formats.add_tfrecord(builder)
  assert str(_folder(tmp_path)) in str(e.value)
  assert _sums(_folder(tmp_path)) == before
  assert [path.name for path in tmp_path.iterdir()] == ['lidc_nodules']


def test_tfds_load_without_tensorflow_says_so(data_dir, monkeypatch):
  monkeypatch.setattr(
    file_formats.importlib.util, 'find_spec', lambda name: None
  )
  with pytest.raises(errors.InputError, match=r"pip install 'mtnet_jax\[tf\]'"):
    tfds.load('lidc_nodules/phantom', split='train', data_dir=data_dir)


def test_what_is_stopped_between_is_no_harm(plain_dir, tmp_path, monkeypatch):
  """Killed while the files move in: the build is as it was, and can go on."""
  shutil.copytree(plain_dir, tmp_path, dirs_exist_ok=True)
  replace, moved = os.replace, []

  def stop_late(source, target):
    moved.append(target.name)
    if len(moved) == 6:
      raise KeyboardInterrupt
    replace(source, target)

  builder = build.build('phantom', data_dir=tmp_path)
  with monkeypatch.context() as patched:
    patched.setattr(file_formats.os, 'replace', stop_late)
    with pytest.raises(KeyboardInterrupt):
      file_formats.add_tfrecord(builder)
  before, after = _sums(_folder(plain_dir)), _sums(_folder(tmp_path))
  assert before.items() <= after.items()
  with pytest.raises(errors.InputError, match='--tfrecord'):
    build.build('phantom', data_dir=tmp_path).as_dataset(split='train')
  file_formats.add_tfrecord(builder)
  loaded = tfds.load('lidc_nodules/phantom', split='test', data_dir=tmp_path)
  assert len(loaded) == 5


def test_a_new_build_starts_without_them(data_dir, tmp_path):
  shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
  builder = build.build(
    'phantom', data_dir=tmp_path, overwrite=True, download_config=_FEW
  )
  assert not list(_folder(tmp_path).glob('*tfrecord*'))
  assert builder.info.file_format.value == 'array_record'
