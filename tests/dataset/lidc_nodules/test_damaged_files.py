"""What TFDS keeps beside the records may be cut, changed, or of another."""

import json
import os
import pathlib
import shutil

import build_job
import pytest
import tensorflow_datasets as tfds

from mtnet_jax.data import lidc
from mtnet_jax.system import errors as mtnet_errors
from tfds_lidc import build
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building

_FILES = ('dataset_info.json', 'features.json', 'metadata.json')


@pytest.fixture
def data_dir(built, tmp_path):
  shutil.copytree(built.data_dir_root, tmp_path / 'data')
  return tmp_path / 'data'


def _file(data_dir, name):
  return data_dir / 'lidc_nodules' / 'all' / '2.0.0' / name


def _is_told(data_dir, says=''):
  """Whoever asks gets the line, with the folder and the way out."""
  with pytest.raises(errors.InputError, match='is damaged') as e:
    build.build('all', data_dir=data_dir)
  with pytest.raises(mtnet_errors.InputError) as of_commands:
    lidc.is_built('lidc_nodules/all', str(data_dir))
  assert str(of_commands.value) == str(e.value)
  message = errors.one_line(e.value)
  assert message.startswith(f'{_file(data_dir, "")}'.rstrip('/'))
  assert says in message
  assert '--config=all' in message and message.endswith('--overwrite`')


@pytest.mark.parametrize('name', _FILES)
@pytest.mark.parametrize(
  'content', (b'', b'{}', b'[]', b'{"name": "lidc', b'\0\xff', b'[' * 100_000)
)
def test_a_damaged_file_is_a_line(data_dir, name, content):
  _file(data_dir, name).write_bytes(content)
  _is_told(data_dir)


@pytest.mark.parametrize('name', _FILES)
def test_a_folder_in_place_of_a_file_is_a_line(data_dir, name):
  _file(data_dir, name).unlink()
  _file(data_dir, name).mkdir()
  _is_told(data_dir, 'Is a directory')


@pytest.mark.skipif(not os.getuid(), reason='root may read any file')
@pytest.mark.parametrize('name', _FILES)
def test_a_file_that_may_not_be_read_is_a_line(data_dir, name):
  _file(data_dir, name).chmod(0)
  _is_told(data_dir)


def _edit(data_dir, **fields):
  path = _file(data_dir, 'dataset_info.json')
  content = json.loads(path.read_text(encoding='utf-8'))
  path.write_text(json.dumps({**content, **fields}), encoding='utf-8')


@pytest.mark.parametrize(
  ('fields', 'says'),
  (
    ({'version': '9.0.0'}, '9.0.0'),
    ({'name': 'mnist'}, 'not of this dataset'),
    ({'configName': 'paper'}, 'not of this dataset'),
    ({'fileFormat': 'punched_cards'}, 'punched_cards'),
    ({'splits': []}, 'no split'),
  ),
)
def test_a_file_of_another_dataset_is_a_line(data_dir, fields, says):
  _edit(data_dir, **fields)
  _is_told(data_dir, says)


@pytest.mark.parametrize(
  ('lengths', 'says'),
  (
    ([], '0 files'),
    (['0'], '0 records'),
    (['-1'], '-1 records'),
    (['99999999999999'], '99999999999999 records'),
    (['9' * 30], 'out of range'),
  ),
)
def test_impossible_numbers_of_records_are_a_line(data_dir, lengths, says):
  _edit(data_dir, splits=[{'name': 'train', 'shardLengths': lengths}])
  _is_told(data_dir, says)


@pytest.mark.parametrize(
  ('lengths', 'says'),
  ((['5'], 'has 4 records'), (['2', '2'], '00000-of-00002')),
)
def test_other_numbers_than_the_files_have_are_a_line(
  data_dir, built, lengths, says
):
  (split,) = built.info.splits
  template = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
  _edit(
    data_dir,
    splits=[
      {'name': split, 'shardLengths': lengths, 'filepathTemplate': template}
    ],
  )
  with pytest.raises(errors.InputError, match=says):
    building.find('all', data_dir=data_dir).as_data_source(split)
  with pytest.raises(mtnet_errors.InputError, match=says) as e:
    lidc.load_split('lidc_nodules/all', split, data_dir=str(data_dir))
  assert str(e.value).count('is damaged') == 1


@pytest.mark.parametrize('name', _FILES)
def test_overwrite_builds_over_it(data_dir, synthetic_ct, built, name):
  _file(data_dir, name).write_text('{')
  again = build.build(
    'all', lidc_dir=synthetic_ct, data_dir=data_dir, overwrite=True
  )
  expected = build_job.records(built)
  assert build_job.records(again).keys() == expected.keys()


def test_a_command_ends_in_the_line(data_dir):
  _file(data_dir, 'dataset_info.json').write_text('{}')
  code, out, err = build_job.run('--config=all', f'--data_dir={data_dir}')
  assert (code, out) == (2, '')
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert 'is damaged' in err


@pytest.mark.parametrize('name', ('dataset_info.json', 'features.json'))
def test_a_config_of_another_version_is_a_line_too(data_dir, name):
  """TFDS makes its builder of the files alone."""
  other = data_dir / 'lidc_nodules' / 'all-readers_9'
  shutil.copytree(_file(data_dir, '').parent, other)
  pathlib.Path(other, '2.0.0', name).write_text('{')
  with pytest.raises(mtnet_errors.InputError):
    lidc.builder('lidc_nodules/all-readers_9', str(data_dir))


def test_what_is_whole_is_read(data_dir):
  found = tfds.builder('lidc_nodules/all', data_dir=data_dir)
  assert len(build_job.records(found)) == 4
