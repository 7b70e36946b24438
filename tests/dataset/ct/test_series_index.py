"""Headers of a download are read once; faulty files are reported, not fatal."""

import functools
import gzip
import os
import shutil

import dicom_files
import numpy as np
import pytest

from tfds_lidc import errors
from tfds_lidc.ct import index as series_index

_RAW = np.arange(16, dtype=np.int16).reshape(4, 4)


@pytest.mark.parametrize(
  'name',
  [
    'LIDC-IDRI-0003/1.3.6/1.3.7/00000{}.dcm',
    'LIDC-IDRI-0003/01-01-2000-NA-30175/3000566.0-NA-03264/1-00{}.dcm',
    '6f0c4f3e-7f9c-4a54-a3d8-9a36b64dff0{}/scan.dcm',
    'a/b/c/d/e/{}',  # no suffix
  ],
)
def test_series_are_found_in_any_layout(tmp_path, name):
  for i in (3, 1, 2):
    dicom_files.write_slice(tmp_path / name.format(i), _RAW, 10.0 * i, '1.2')
  index = series_index.load(tmp_path)
  assert [s.z_mm for s in index.series['1.2'].slices] == [10.0, 20.0, 30.0]
  assert not index.faults


def test_files_other_than_ct_are_not_faults(tmp_path):
  dicom_files.write_slice(tmp_path / '1.dcm', _RAW, 1.0, '1.2')
  xray = dicom_files.write_slice(
    tmp_path / '2.dcm', _RAW, 1.0, '1.4', modality='DX'
  )
  (tmp_path / 'LICENSE').write_text('CC BY 3.0')
  (tmp_path / 'max.xml').write_text('<LidcReadMessage/>')
  index = series_index.load(tmp_path)
  assert set(index.series) == {'1.2'}
  assert index.others == {('DX', 'LIDC-IDRI-0003', '1.4'): [str(xray)]}
  assert (index.num_files, index.faults) == (4, [])


def test_faulty_files_do_not_affect_intact_ones(tmp_path):
  whole = dicom_files.write_slice(tmp_path / 'whole.dcm', _RAW, 1.0, '1.2')
  data = whole.read_bytes()
  for name, content in {
    'cut_header.dcm': data[:400],
    'cut_pixels.dcm': data[:-6],
    'empty.dcm': b'',
    'noise.dcm': b'\xff\xfe\xfd' * 100,
    'text.dcm': b'404 Not Found',
    'zeros.dcm': bytes(5000),
  }.items():
    (tmp_path / name).write_bytes(content)
  os.symlink(tmp_path / 'nowhere', tmp_path / 'lost.dcm')
  index = series_index.load(tmp_path)
  assert [s.path for s in index.series['1.2'].slices] == [str(whole)]
  assert {os.path.basename(f.path): f.kind for f in index.faults} == {
    'cut_header.dcm': 'truncated',
    'cut_pixels.dcm': 'truncated',
    'empty.dcm': 'empty',
    'lost.dcm': 'unreadable',
    'noise.dcm': 'not DICOM',
    'text.dcm': 'text',
    'zeros.dcm': 'zeros',
  }
  cut = next(f for f in index.faults if 'cut_pixels' in f.path)
  assert '6 bytes short' in cut.reason
  assert (cut.series_uid, cut.z_mm) == ('1.2', 1.0)


def test_only_changed_files_are_read_again(tmp_path):
  ct, cache = tmp_path / 'ct', tmp_path / 'cache'
  paths = [
    dicom_files.write_slice(ct / f'{i}.dcm', _RAW, float(i), '1.2')
    for i in range(4)
  ]

  def load():
    index = series_index.load(ct, cache_dir=cache)
    assert index == series_index.SeriesIndex(
      **{**vars(series_index.load(ct)), 'num_read': index.num_read}
    )
    return index

  assert load().num_read == 4
  assert load().num_read == 0
  # Another position; the file has the same size but a later time.
  dicom_files.write_slice(paths[0], _RAW, 9.0, '1.2')
  os.utime(paths[0], ns=(0, os.stat(paths[0]).st_mtime_ns + 1))
  index = load()
  assert index.num_read == 1
  assert [s.z_mm for s in index.series['1.2'].slices] == [1, 2, 3, 9]
  # The file has the same time but another size.
  before = os.stat(paths[1]).st_mtime_ns
  paths[1].write_bytes(paths[1].read_bytes()[:-2])
  os.utime(paths[1], ns=(before, before))
  index = load()
  assert (index.num_read, len(index.faults)) == (1, 1)
  paths[1].unlink()
  index = load()
  assert (index.num_read, index.num_files, index.faults) == (0, 3, [])


def test_damaged_cache_is_read_again(tmp_path):
  dicom_files.write_slice(tmp_path / 'ct' / '1.dcm', _RAW, 1.0, '1.2')
  cache = tmp_path / 'cache'
  series_index.load(tmp_path / 'ct', cache_dir=cache)
  (cached,) = cache.iterdir()
  cached.write_bytes(cached.read_bytes()[:-9])
  assert series_index.load(tmp_path / 'ct', cache_dir=cache).num_read == 1
  assert series_index.load(tmp_path / 'ct', cache_dir=cache).num_read == 0


def test_interrupted_reading_is_resumed(tmp_path, monkeypatch):
  for i in range(4):
    dicom_files.write_slice(tmp_path / 'ct' / f'{i}.dcm', _RAW, float(i), '1.2')
  monkeypatch.setattr(series_index, '_CHUNK', 1)
  read = series_index._read_chunk

  def interrupted(paths):
    if paths[0].endswith('2.dcm'):
      raise KeyboardInterrupt
    return read(paths)

  monkeypatch.setattr(series_index, '_read_chunk', interrupted)
  with pytest.raises(KeyboardInterrupt):
    series_index.load(tmp_path / 'ct', cache_dir=tmp_path / 'cache')
  monkeypatch.setattr(series_index, '_read_chunk', read)
  index = series_index.load(tmp_path / 'ct', cache_dir=tmp_path / 'cache')
  assert index.num_read == 2
  assert len(index.series['1.2'].slices) == 4


def test_several_processes_give_the_same_index(tmp_path, monkeypatch):
  for i in range(7):
    dicom_files.write_slice(tmp_path / f'{i}.dcm', _RAW, float(i), f'1.{i % 2}')
  (tmp_path / '9.dcm').write_text('no image')
  expected = series_index.load(tmp_path)
  monkeypatch.setattr(series_index, '_MIN_PARALLEL', 0)
  monkeypatch.setattr(series_index, '_CHUNK', 2)
  assert series_index.load(tmp_path, workers=2) == expected


def test_directory_without_ct_is_not_cached(tmp_path):
  (tmp_path / 'ct').mkdir()
  (tmp_path / 'ct' / 'a.dcm').write_text('nothing')
  with pytest.raises(errors.InputError, match='0 CT images among 1 files'):
    series_index.load(tmp_path / 'ct', cache_dir=tmp_path / 'cache')
  shutil.rmtree(tmp_path / 'ct')
  with pytest.raises(errors.InputError, match='does not exist'):
    series_index.load(tmp_path / 'ct', cache_dir=tmp_path / 'cache')
  assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize(
  'content',
  [
    b'[]',
    b'7',
    b'{"format": 2}',
    b'{"format": 2, "files": [1]}',
    b'{"format": 2, "files": {"a": null}}',
    b'{"format": 2, "files": {"a": [1, 2, ["CT"], null]}}',
    b'[' * 100_000,
    None,
  ],
)
def test_cache_of_another_format_is_ignored(tmp_path, content):
  pixels = np.arange(64, dtype=np.int16).reshape(8, 8)
  dicom_files.write_slice(tmp_path / 'ct' / '1.dcm', pixels)
  load = functools.partial(
    series_index.load, tmp_path / 'ct', cache_dir=tmp_path / 'cache'
  )
  expected = load()
  (cache,) = (tmp_path / 'cache').iterdir()
  # Flipped bits make zlib raise its own type of error.
  good = cache.read_bytes()
  bad = good[:12] + bytes([good[12] ^ 255]) + good[13:]
  cache.write_bytes(gzip.compress(content) if content else bad)
  assert load().series == expected.series
