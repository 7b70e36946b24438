"""Damaged files of TFDS in a dataset are a one-line error."""

import json
import os
import shlex
import shutil
import sys

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


def _assert_damaged(data_dir, words=''):
  """Checks that both packages raise one line with the folder and a way out."""
  with pytest.raises(errors.InputError, match='is damaged') as e:
    build.build('all', data_dir=data_dir)
  with pytest.raises(mtnet_errors.InputError) as of_commands:
    lidc.is_built('lidc_nodules/all', str(data_dir))
  assert str(of_commands.value) == str(e.value)
  message = errors.one_line(e.value)
  assert message.startswith(f'{_file(data_dir, "")}'.rstrip('/'))
  assert words in message
  assert '--config=all' in message and message.endswith('--overwrite`')


@pytest.mark.parametrize('name', _FILES)
@pytest.mark.parametrize(
  'content', (b'', b'{}', b'[]', b'{"name": "lidc', b'\0\xff', b'[' * 100_000)
)
def test_damaged_file_is_a_one_line_error(data_dir, name, content):
  _file(data_dir, name).write_bytes(content)
  _assert_damaged(data_dir)


@pytest.mark.parametrize('name', _FILES)
def test_folder_in_place_of_a_file_is_a_one_line_error(data_dir, name):
  _file(data_dir, name).unlink()
  _file(data_dir, name).mkdir()
  _assert_damaged(data_dir, 'Is a directory')


@pytest.mark.skipif(not os.getuid(), reason='root may read any file')
@pytest.mark.parametrize('name', _FILES)
def test_unreadable_file_is_a_one_line_error(data_dir, name):
  _file(data_dir, name).chmod(0)
  _assert_damaged(data_dir)


@pytest.mark.parametrize('name', (*_FILES, 'label.labels.txt', 'records'))
@pytest.mark.parametrize(
  'make',
  (os.mkfifo, lambda path: path.symlink_to('/dev/zero')),
  ids=('pipe', 'endless'),
)
def test_pipe_or_device_in_place_of_a_file_is_refused_unread(
  data_dir, make, name
):
  """A pipe would block its reader forever, the device would fill the memory."""
  path = _file(data_dir, name)
  if name == 'records':
    (path,) = path.parent.glob('*.array_record-*')
  path.unlink()
  make(path)
  _assert_damaged(data_dir, f'{path.name} is not a regular file')


@pytest.mark.parametrize('name', (*_FILES, 'label.labels.txt'))
def test_file_longer_than_the_limit_is_refused_unread(data_dir, name):
  with _file(data_dir, name).open('r+b') as file:
    file.truncate(1 << 40)
  _assert_damaged(data_dir, f'{name} is over 16 MiB')


def test_links_and_additional_folders_are_accepted(data_dir):
  path = _file(data_dir, 'metadata.json')
  path.rename(data_dir / 'elsewhere.json')
  path.symlink_to(data_dir / 'elsewhere.json')
  _file(data_dir, '.ipynb_checkpoints').mkdir()
  _file(data_dir, '.#README.md').symlink_to('somebody@somewhere.1')
  found = building.find('all', data_dir=data_dir)
  assert len(build_job.records(found)) == 4


def test_records_in_another_folder_are_refused(data_dir, built, tmp_path):
  """The template of their names could lead to any file of the machine."""
  (split,) = built.info.splits
  source = _file(data_dir, f'lidc_nodules-{split}.array_record-00000-of-00001')
  shutil.copy(source, tmp_path / f'{split}-00000-of-00001')
  template = '../../../../{SPLIT}-{SHARD_X_OF_Y}'
  _edit(
    data_dir,
    splits=[
      {'name': split, 'shardLengths': ['4'], 'filepathTemplate': template}
    ],
  )
  with pytest.raises(errors.InputError, match='are in another folder'):
    building.find('all', data_dir=data_dir).as_data_source(split)


def _edit(data_dir, **fields):
  path = _file(data_dir, 'dataset_info.json')
  content = json.loads(path.read_text(encoding='utf-8'))
  path.write_text(json.dumps({**content, **fields}), encoding='utf-8')


@pytest.mark.parametrize(
  ('fields', 'words'),
  (
    ({'version': '9.0.0'}, '9.0.0'),
    ({'name': 'mnist'}, 'not of this dataset'),
    ({'configName': 'paper'}, 'not of this dataset'),
    ({'fileFormat': 'punched_cards'}, 'punched_cards'),
    ({'splits': []}, 'no split'),
    ({'splits': [{'name': '\x1b]0;x\x07', 'shardLengths': ['4']}]}, 'called'),
  ),
)
def test_file_of_another_dataset_is_a_one_line_error(data_dir, fields, words):
  _edit(data_dir, **fields)
  _assert_damaged(data_dir, words)


@pytest.mark.parametrize(
  ('lengths', 'words'),
  (
    ([], '0 files'),
    (['0'], '0 records'),
    (['-1'], '-1 records'),
    (['99999999999999'], '99999999999999 records'),
    (['9' * 30], 'out of range'),
  ),
)
def test_impossible_number_of_records_is_a_one_line_error(
  data_dir, lengths, words
):
  _edit(data_dir, splits=[{'name': 'train', 'shardLengths': lengths}])
  _assert_damaged(data_dir, words)


@pytest.mark.parametrize(
  ('lengths', 'words'),
  ((['5'], 'has 4 records'), (['2', '2'], '00000-of-00002')),
)
def test_number_of_records_other_than_in_the_files_is_a_one_line_error(
  data_dir, built, lengths, words
):
  (split,) = built.info.splits
  template = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
  _edit(
    data_dir,
    splits=[
      {'name': split, 'shardLengths': lengths, 'filepathTemplate': template}
    ],
  )
  with pytest.raises(errors.InputError, match=words):
    building.find('all', data_dir=data_dir).as_data_source(split)
  with pytest.raises(mtnet_errors.InputError, match=words) as e:
    lidc.load_split('lidc_nodules/all', split, data_dir=str(data_dir))
  assert str(e.value).count('is damaged') == 1


@pytest.mark.parametrize(
  ('name', 'make'),
  (
    *((name, lambda path: path.write_text('{')) for name in _FILES),
    ('dataset_info.json', os.mkfifo),
    ('label.labels.txt', lambda path: path.symlink_to('/dev/zero')),
  ),
)
def test_overwrite_replaces_a_damaged_dataset(
  data_dir, synthetic_ct, built, name, make
):
  _file(data_dir, name).unlink()
  make(_file(data_dir, name))
  again = build.build(
    'all', lidc_dir=synthetic_ct, data_dir=data_dir, overwrite=True
  )
  expected = build_job.records(built)
  assert build_job.records(again).keys() == expected.keys()


def test_command_prints_the_one_line_error(data_dir):
  _file(data_dir, 'dataset_info.json').write_text('{}')
  code, out, err = build_job.run('--config=all', f'--data_dir={data_dir}')
  assert (code, out) == (2, '')
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert 'is damaged' in err


@pytest.mark.parametrize('value', ('x', float('nan'), 0, -1, True, [0.7]))
def test_invalid_spacing_is_a_one_line_error(data_dir, value):
  path = _file(data_dir, 'metadata.json')
  content = json.loads(path.read_text(encoding='utf-8'))
  path.write_text(json.dumps({**content, 'spacing_mm': value}))
  _assert_damaged(data_dir, 'metadata.json is not of this dataset')


@pytest.fixture
def other(data_dir):
  """The folder of a config that this version does not know.

  TFDS makes its builder from the files alone.
  """
  parent = data_dir / 'lidc_nodules' / 'all-readers_9'
  shutil.copytree(_file(data_dir, '').parent, parent)
  path = parent / '2.0.0' / 'dataset_info.json'
  content = json.loads(path.read_text(encoding='utf-8'))
  path.write_text(json.dumps({**content, 'configName': parent.name}))
  return path.parent


def test_config_of_another_version_is_read(other):
  found = lidc.builder('lidc_nodules/all-readers_9', str(other.parents[2]))
  assert len(build_job.records(found)) == 4


@pytest.mark.parametrize('name', ('dataset_info.json', 'features.json'))
@pytest.mark.parametrize(
  'make',
  (
    lambda path: path.write_text('{'),
    os.mkfifo,
    lambda path: path.symlink_to('/dev/zero'),
  ),
  ids=('cut', 'pipe', 'endless'),
)
def test_damaged_config_of_another_version_is_a_one_line_error(
  other, name, make
):
  (other / name).unlink()
  make(other / name)
  with pytest.raises(mtnet_errors.InputError, match='is damaged'):
    lidc.builder('lidc_nodules/all-readers_9', str(other.parents[2]))


def _feature(name, **fields):
  return {'pythonClassName': name, **fields}


_DICT = 'tensorflow_datasets.core.features.features_dict.FeaturesDict'
_HARMFUL = _feature('harmful_module.Feature', tensor={})


@pytest.mark.parametrize(
  'content',
  (
    _HARMFUL,
    {'python_class_name': 'harmful_module.Feature', 'tensor': {}},
    _feature(_DICT, featuresDict={'features': {'a': _HARMFUL}}),
    _feature(_DICT, featuresDict={'features': {'pythonClassName': _HARMFUL}}),
    _feature(
      'tensorflow_datasets.core.features.sequence_feature.Sequence',
      sequence={'feature': _HARMFUL, 'length': '-1'},
    ),
    # Older formats of TFDS, as an object or as text inside of one.
    {'type': 'harmful_module.Feature', 'content': {}},
    {
      'type': _DICT,
      'content': json.dumps({'features': {'a': _HARMFUL}}),
      'proto_cls': 'tensorflow_datasets.FeaturesDict',
    },
    _feature(
      _DICT,
      jsonFeature={
        'json': json.dumps(
          {'a': {'type': 'harmful_module.Feature', 'content': {}}}
        )
      },
    ),
  ),
)
@pytest.mark.parametrize('version', ('', ':2.0.0'))
def test_no_module_that_a_dataset_names_is_imported(
  other, monkeypatch, content, version
):
  """TFDS imports the module of a class that it does not know."""
  (other.parents[2] / 'harmful_module.py').write_text('HARM = 1\n')
  monkeypatch.setattr(sys, 'path', [str(other.parents[2]), *sys.path])
  monkeypatch.delitem(sys.modules, 'harmful_module', raising=False)
  (other / 'features.json').write_text(json.dumps(content))
  name = f'lidc_nodules/all-readers_9{version}'
  with pytest.raises(
    mtnet_errors.InputError, match=r'damaged \(features.json (a|is|h)'
  ):
    lidc.builder(name, str(other.parents[2]))
  assert 'harmful_module' not in sys.modules


def test_argument_of_tfds_in_a_name_is_refused(data_dir):
  """TFDS would take another folder from the part after a second slash."""
  name = f'lidc_nodules/all-readers_9/data_dir={data_dir}'
  with pytest.raises(mtnet_errors.InputError, match='is no name'):
    lidc.builder(name, '')


def test_folder_in_a_command_of_a_message_is_quoted(tmp_path):
  """A folder's name could otherwise start another command in a shell."""
  where = f'{tmp_path}/a b; touch $(x)'
  os.makedirs(where)
  with pytest.raises(errors.InputError) as e:
    building.find('all', data_dir=where).as_data_source('train')
  command = str(e.value).split('`')[1]
  assert shlex.split(command) == [
    'python',
    '-m',
    'tfds_lidc.build',
    '--config=all',
    f'--data_dir={where}',
    '--lidc_dir=DIR',
  ]


def test_intact_dataset_is_read(data_dir):
  found = tfds.builder('lidc_nodules/all', data_dir=data_dir)
  assert len(build_job.records(found)) == 4
