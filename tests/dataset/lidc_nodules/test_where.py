"""All functions and commands look for datasets in the same folder as TFDS."""

import textwrap

import main_job
import pytest

from mtnet_jax.data import lidc
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building

# The policy selects only a few nodules.
_POLICY = 'readers=4,size=27-30'
_NAME = f'lidc_nodules/phantom?{_POLICY}'


def _run(command, **env):
  done = main_job.run(command, **env)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


def _python(text, **env):
  command = [main_job.module('x')[0], '-c', textwrap.dedent(text)]
  return _run(command, **env).split()


def test_tfds_data_dir_is_used_by_all_functions(tmp_path):
  """The command builds a dataset there; no call names the folder."""
  env = {'HOME': str(tmp_path / 'home'), 'TFDS_DATA_DIR': str(tmp_path / 'set')}
  build = main_job.module(
    'tfds_lidc.build', '--config=phantom', f'--policy={_POLICY}'
  )
  assert f'records in {tmp_path}/set/lidc_nodules/' in _shortened(
    _run(build, **env)
  )
  assert 'already built' in _run(build, **env)
  assert not (tmp_path / 'home' / 'tensorflow_datasets').exists()
  found = _python(
    f"""
    import tensorflow_datasets as tfds
    from mtnet_jax.data import lidc
    from tfds_lidc.lidc_nodules import building
    print(lidc.is_built({_NAME!r}, ''))
    print(building.is_built('phantom', policy={_POLICY!r}))
    print(lidc.builder({_NAME!r}, '').data_dir_root)
    print(lidc.builder('lidc_nodules/paper', '').data_dir_root)
    print(tfds.builder('lidc_nodules/paper').data_dir_root)
    print(building.cache_dir())
    """,
    **env,
  )
  where = f'{tmp_path}/set'
  cache = f'{where}/lidc_nodules/.cache'
  assert found == ['True', 'True', where, where, where, cache]


def _shortened(text):
  """Removes the counts from a line 'records (train 9, ...) in DIR'."""
  head, _, rest = text.partition('records (')
  return f'{head}records{rest.partition(")")[2]}'


def test_default_is_in_the_home_directory(tmp_path):
  found = _python(
    """
    import os
    os.environ.pop('TFDS_DATA_DIR', None)
    from mtnet_jax.data import lidc
    from tfds_lidc.lidc_nodules import building
    print(lidc.builder('lidc_nodules/paper', '').data_dir_root)
    print(building.find('paper').data_dir_root)
    """,
    HOME=str(tmp_path),
  )
  assert found == [f'{tmp_path}/tensorflow_datasets'] * 2


def test_registered_folder_is_used_if_it_has_the_dataset(tmp_path):
  """`tfds.builder` does the same; other datasets are in the usual folder."""
  found = _python(
    f"""
    import tensorflow_datasets as tfds
    from mtnet_jax.data import lidc
    from tfds_lidc.lidc_nodules import building
    building.build(
      'phantom', policy={_POLICY!r}, data_dir={str(tmp_path / 'ours')!r}
    )
    print('|', lidc.is_built({_NAME!r}, ''))
    tfds.core.add_data_dir({str(tmp_path / 'ours')!r})
    print(lidc.is_built({_NAME!r}, ''))
    print(building.find('phantom', policy={_POLICY!r}).data_dir_root)
    print(building.find('paper').data_dir_root)
    """,
    TFDS_DATA_DIR=str(tmp_path / 'set'),
  )
  assert found[found.index('|') + 1 :] == [
    'False',
    'True',
    f'{tmp_path}/ours',
    f'{tmp_path}/set',
  ]


def test_tilde_is_the_home_directory(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for found in (
    building.find('paper', data_dir='~/sets'),
    lidc.builder('lidc_nodules/paper', '~/sets'),
    lidc.builder('lidc_nodules/paper?readers=3', '~/sets'),
  ):
    assert str(found.data_dir_root) == f'{tmp_path}/sets'


def test_incomplete_dataset_is_not_built(tmp_path):
  """A file that TFDS reads is missing."""
  folder = building.find('phantom', data_dir=tmp_path).data_path
  folder.mkdir(parents=True)
  (folder / 'features.json').write_text('{}')
  assert not building.is_built('phantom', data_dir=tmp_path)
  assert not lidc.is_built('lidc_nodules/phantom', tmp_path)


def test_folder_that_is_not_on_this_machine_is_refused():
  with pytest.raises(errors.InputError, match='gs://bucket/sets is not on'):
    building.cache_dir('gs://bucket/sets')
