"""A dataset that is replaced is the old or the new one, whatever stops it."""

import errno
import os
import pathlib
import shutil

import project_configs
import pytest
import tensorflow_datasets as tfds

from mtnet_jax.data import choice
from mtnet_jax.data import lidc
from mtnet_jax.system import errors as run_errors
from tfds_lidc import build
from tfds_lidc import errors
from tfds_lidc.lidc_nodules import building
from tfds_lidc.lidc_nodules import staging


@pytest.fixture(name='killed')
def _killed(built, tmp_path):
  """A data directory where a build was killed between its two renames."""
  root = built.data_path.parents[2]
  shutil.copytree(root, tmp_path / 'data')
  version = tmp_path / 'data' / built.data_path.relative_to(root)
  os.rename(version, version.with_name(f'.{version.name}.mtnet_jax-old'))
  return pathlib.Path(version)


def _records(builder):
  return {
    record['nodule_id']
    for name in builder.info.splits
    for record in builder.as_data_source(name)
  }


@pytest.mark.parametrize(
  'open_it',
  (
    lambda data_dir: building.find('all', data_dir=data_dir),
    lambda data_dir: build.build('all', data_dir=data_dir),
    lambda data_dir: tfds.builder('lidc_nodules/all', data_dir=data_dir),
    lambda data_dir: lidc.builder('lidc_nodules/all', data_dir),
  ),
  ids=('find', 'build', 'tfds', 'run'),
)
def test_a_reader_finds_the_old_one(killed, built, open_it):
  builder = open_it(killed.parents[2])
  assert builder.is_prepared()
  assert _records(builder) == _records(built)
  assert os.listdir(killed.parent) == [killed.name]


def test_one_of_files_only_is_found(killed):
  """A config that the code does not know, as of another's `--policy`."""
  theirs = killed.parents[1] / 'all-nodules_0123456789'
  killed.parent.rename(theirs)
  name = f'lidc_nodules/{theirs.name}'
  assert lidc.is_built(name, killed.parents[2])


def test_no_run_falls_back_to_phantoms(killed, monkeypatch):
  """Not even where this user may not rename."""
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.dataset.name = 'lidc_nodules/all'
    config.dataset.data_dir = str(killed.parents[2])
    config.dataset.fallback = 'lidc_nodules/phantom'

  def refuse(*_):
    raise PermissionError(13, 'Permission denied')

  with monkeypatch.context() as patched:
    patched.setattr(os, 'rename', refuse)
    with pytest.raises(run_errors.InputError, match='Permission denied'):
      choice.choose_dataset(config)
  chosen = choice.choose_dataset(config)
  assert chosen.dataset.name == 'lidc_nodules/all'


def test_one_that_is_given_back_late_is_no_phantom_either(killed, tmp_path):
  """Where the kill comes after the builder has looked."""
  hidden = killed.with_name(f'.{killed.name}.mtnet_jax-old')
  hidden.rename(tmp_path / 'elsewhere')
  builder = building.find('all', data_dir=killed.parents[2])
  (tmp_path / 'elsewhere').rename(hidden)
  with pytest.raises(errors.InputError, match='run the command again'):
    builder.is_prepared()
  assert killed.exists()


@pytest.mark.parametrize('failing', range(1, 4))
@pytest.mark.parametrize('error', (OSError(28, 'full'), KeyboardInterrupt()))
def test_what_fails_while_it_is_moved_leaves_the_old(
  built, synthetic_ct, tmp_path, monkeypatch, failing, error
):
  """At its notes (a replace), and at both renames of a build."""
  root = built.data_path.parents[2]
  shutil.copytree(root, tmp_path / 'data')
  before = _records(built)
  moves = []

  def moving(call):
    def move(source, target, *args, **kwargs):
      if staging_of(source) or target.endswith('-old'):
        moves.append(target)
        if len(moves) == failing:
          raise error
      return call(source, target, *args, **kwargs)

    return lambda source, target, *args, **kwargs: move(
      os.fspath(source), os.fspath(target), *args, **kwargs
    )

  def staging_of(source):
    # What TFDS moves is not on its way to the dataset.
    return publishing and '.mtnet_jax-' in source

  publishing, publish = [], staging.publish

  def published(*args):
    publishing.append(True)
    publish(*args)

  monkeypatch.setattr(staging, 'publish', published)
  for name in ('rename', 'replace'):
    monkeypatch.setattr(os, name, moving(getattr(os, name)))
  kind = KeyboardInterrupt
  if isinstance(error, OSError):
    kind = errors.InputError
  with pytest.raises(kind):
    build.build(
      'all', lidc_dir=synthetic_ct, data_dir=tmp_path / 'data', overwrite=True
    )
  monkeypatch.undo()
  assert len(moves) >= failing
  again = building.find('all', data_dir=tmp_path / 'data')
  assert again.is_prepared() and _records(again) == before
  assert not list(tmp_path.rglob('.*.mtnet_jax-*'))


@pytest.mark.parametrize(
  'name',
  ('lidc_nodules', 'lidc_nodules/all', 'lidc_nodules/all/VERSION'),
)
def test_a_dataset_on_another_disk_is_replaced_there(
  built, synthetic_ct, tmp_path, monkeypatch, name
):
  """What links lead to; staged beside it, for nothing moves between disks."""
  name = name.replace('VERSION', str(built.version))
  disk, data = tmp_path / 'disk', tmp_path / 'data'
  shutil.copytree(built.data_path.parents[2] / 'lidc_nodules', data / 'here')
  (data / 'here').rename(data / 'lidc_nodules')
  disk.mkdir()
  (data / name).rename(disk / 'there')
  (data / name).symlink_to(disk / 'there')

  def on_one_disk(call):
    def move(source, target, **kwargs):
      there = [
        os.path.realpath(x).startswith(str(disk)) for x in (source, target)
      ]
      if there[0] != there[1]:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
      call(source, target, **kwargs)

    return move

  for moving in ('rename', 'replace'):
    monkeypatch.setattr(os, moving, on_one_disk(getattr(os, moving)))
  builder = building.find('all', data_dir=data)
  with staging.folder(builder) as folder:
    assert folder.resolve().is_relative_to(disk)
  version = (data / 'lidc_nodules' / 'all' / str(builder.version)).resolve()
  (version / 'of the old').touch()
  build.build('all', lidc_dir=synthetic_ct, data_dir=data, overwrite=True)
  assert (data / name).is_symlink()
  assert not (version / 'of the old').exists()
  assert _records(building.find('all', data_dir=data)) == _records(built)
