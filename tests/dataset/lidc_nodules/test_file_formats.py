"""TFRecord files hold the same records as the array_record files."""

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

# Two files per split, so that their order matters.
_FEW = tfds.download.DownloadConfig(max_examples_per_split=5, num_shards=2)
_IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)
_CHANGED_POLICY = 'phantom-size_3_to_9'
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
  """The same datasets with TFRecord files added."""
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


@pytest.mark.parametrize('config', ['phantom', _CHANGED_POLICY])
@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_same_records_in_the_same_order(plain_dir, data_dir, config, split):
  name = f'lidc_nodules/{config}'
  records = tfds.data_source(name, split=split, data_dir=plain_dir)
  loaded = tfds.load(
    name, split=split, data_dir=data_dir, read_config=_IN_ORDER
  )
  assert isinstance(loaded, tf.data.Dataset)
  assert _assert_same(records, tfds.as_numpy(loaded)) == 5
  # The array_record files still give the same records.
  again = tfds.data_source(name, split=split, data_dir=data_dir)
  assert _assert_same(records, again) == 5


def test_records_are_copied_byte_by_byte(data_dir):
  folder = _folder(data_dir)
  records = tfds.builder_from_directory(folder).as_data_source(
    'test', deserialize_method=_RAW
  )
  files = sorted(map(str, folder.glob('*-test.tfrecord-*-of-00002')))
  assert len(files) == 2
  copies = tf.data.TFRecordDataset(files).as_numpy_iterator()
  assert list(copies) == [records[i] for i in range(len(records))]


def test_array_record_files_are_kept(plain_dir, data_dir):
  before, after = _sums(_folder(plain_dir)), _sums(_folder(data_dir))
  changed = {name for name in before if before[name] != after[name]}
  assert changed == {'dataset_info.json'}
  added = after.keys() - before.keys()
  assert len(added) == 6 and all('.tfrecord-' in name for name in added)


def test_adding_tfrecord_waits_for_a_build(plain_dir, monkeypatch):
  before = _sums(_folder(plain_dir))
  builder = build.build('phantom', data_dir=plain_dir)
  monkeypatch.setattr(locks, '_MAX_WAIT_S', 0)
  with locks.exclusive(plain_dir, 'phantom'):
    with pytest.raises(errors.InputError, match='another process still builds'):
      file_formats.add_tfrecord(builder)
  assert _sums(_folder(plain_dir)) == before


def test_array_records_are_counted_if_there_are_tfrecord_files(
  data_dir, tmp_path
):
  shutil.copytree(data_dir, tmp_path / 'data')
  first, second = sorted(
    _folder(tmp_path / 'data').glob('*-train.array_record-*')
  )
  shutil.copy(second, first)  # one has 2 of the 5 records, the other has 3
  with pytest.raises(errors.InputError, match=r'has [23] records, .* says'):
    build.build('phantom', data_dir=tmp_path / 'data').as_data_source('train')


def test_one_builder_reads_both_formats(data_dir):
  builder = build.build('phantom', data_dir=data_dir)
  for _ in range(2):
    records = builder.as_data_source('train')
    loaded = builder.as_dataset(split='train', read_config=_IN_ORDER)
    assert _assert_same(records, tfds.as_numpy(loaded)) == 5


def test_requested_format_is_used(data_dir):
  name = 'lidc_nodules/phantom'
  for file_format in ('tfrecord', 'array_record'):
    kwargs = {'file_format': file_format}
    builder = tfds.builder(name, data_dir=data_dir, **kwargs)
    assert builder.info.file_format.value == file_format
  with pytest.raises(ValueError, match='parquet'):
    tfds.builder(name, data_dir=data_dir, file_format='parquet')
  # The card warns of this error; remove the warning once TFDS has fixed it.
  with pytest.raises(ValueError, match='already set'):
    tfds.builder(
      f'lidc_nodules/{_CHANGED_POLICY}',
      data_dir=data_dir,
      file_format='array_record',
    )


def test_both_formats_are_read_without_this_package(data_dir, tmp_path):
  """TFDS alone reads a copy of the folder."""
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


def test_command_adds_tfrecord_without_ct(plain_dir, tmp_path):
  shutil.copytree(plain_dir, tmp_path, dirs_exist_ok=True)
  for _ in range(2):  # the second time, the files exist already
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


def test_failure_leaves_the_build_unchanged(plain_dir, tmp_path, monkeypatch):
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


def test_error_of_tfds_load_without_tensorflow(data_dir, monkeypatch):
  monkeypatch.setattr(
    file_formats.importlib.util, 'find_spec', lambda name: None
  )
  with pytest.raises(errors.InputError, match=r"pip install 'mtnet_jax\[tf\]'"):
    tfds.load('lidc_nodules/phantom', split='train', data_dir=data_dir)


def test_interrupted_move_keeps_the_build_and_can_be_repeated(
  plain_dir, tmp_path, monkeypatch
):
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


def test_new_build_has_no_tfrecord_files(data_dir, tmp_path):
  shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
  builder = build.build(
    'phantom', data_dir=tmp_path, overwrite=True, download_config=_FEW
  )
  assert not list(_folder(tmp_path).glob('*tfrecord*'))
  assert builder.info.file_format.value == 'array_record'
