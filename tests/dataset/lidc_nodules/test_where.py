"""One folder of datasets for whatever builds, reads or asks: that of TFDS."""

import textwrap

import main_job
import pytest

from mtnet_jax.data import lidc
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building

# A handful of nodules.
_POLICY = 'readers=4,size=27-30'
_NAME = f'lidc_nodules/phantom?{_POLICY}'


def _run(command, **env):
  done = main_job.run(command, **env)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


def _python(text, **env):
  command = [main_job.module('x')[0], '-c', textwrap.dedent(text)]
  return _run(command, **env).split()


def test_tfds_data_dir_is_where_all_look(tmp_path):
  """Built by command, and found by all that read, with no folder given."""
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
  """Without the numbers of each split: 'records (train 9, ...) in DIR'."""
  head, _, rest = text.partition('records (')
  return f'{head}records{rest.partition(")")[2]}'


def test_home_is_the_default(tmp_path):
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


def test_a_registered_folder_that_has_it_is_found(tmp_path):
  """As `tfds.builder` finds it; what it has not goes to the usual folder."""
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


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for found in (
    building.find('paper', data_dir='~/sets'),
    lidc.builder('lidc_nodules/paper', '~/sets'),
    lidc.builder('lidc_nodules/paper?readers=3', '~/sets'),
  ):
    assert str(found.data_dir_root) == f'{tmp_path}/sets'


def test_what_is_half_there_is_not_built(tmp_path):
  """For both: a file is missing that TFDS would read."""
  folder = building.find('phantom', data_dir=tmp_path).data_path
  folder.mkdir(parents=True)
  (folder / 'features.json').write_text('{}')
  assert not building.is_built('phantom', data_dir=tmp_path)
  assert not lidc.is_built('lidc_nodules/phantom', tmp_path)


def test_a_folder_elsewhere_is_no_place_to_build():
  with pytest.raises(errors.InputError, match='gs://bucket/sets is not on'):
    building.cache_dir('gs://bucket/sets')
