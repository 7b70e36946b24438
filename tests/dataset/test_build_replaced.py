"""An interrupted replacement of a dataset leaves the old one or the new one."""

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
  """A dataset whose replacement was killed between its two renames."""
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
def test_old_dataset_is_restored_when_it_is_opened(killed, built, open_it):
  builder = open_it(killed.parents[2])
  assert builder.is_prepared()
  assert _records(builder) == _records(built)
  assert os.listdir(killed.parent) == [killed.name]


def test_dataset_of_files_only_is_found(killed):
  """The code does not know its config: another user built it with --policy."""
  theirs = killed.parents[1] / 'all-nodules_0123456789'
  killed.parent.rename(theirs)
  name = f'lidc_nodules/{theirs.name}'
  assert lidc.is_built(name, killed.parents[2])


def test_run_does_not_fall_back_to_phantoms(killed, monkeypatch):
  """Not even if this user has no permission to rename."""
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


def test_dataset_that_is_restored_late_does_not_become_phantoms(
  killed, tmp_path
):
  """The replacement is killed after `find` has looked for the dataset."""
  hidden = killed.with_name(f'.{killed.name}.mtnet_jax-old')
  hidden.rename(tmp_path / 'elsewhere')
  builder = building.find('all', data_dir=killed.parents[2])
  (tmp_path / 'elsewhere').rename(hidden)
  with pytest.raises(errors.InputError, match='run the command again'):
    builder.is_prepared()
  assert killed.exists()


@pytest.mark.parametrize('failing', range(1, 4))
@pytest.mark.parametrize('error', (OSError(28, 'full'), KeyboardInterrupt()))
def test_failing_move_keeps_the_old_dataset(
  built, synthetic_ct, tmp_path, monkeypatch, failing, error
):
  """Moves are the `os.replace` of the notes and both renames of a build."""
  root = built.data_path.parents[2]
  shutil.copytree(root, tmp_path / 'data')
  before = _records(built)
  moves = []

  def moving(call):
    def move(source, target, *args, **kwargs):
      if is_staged(source) or target.endswith('-old'):
        moves.append(target)
        if len(moves) == failing:
          raise error
      return call(source, target, *args, **kwargs)

    return lambda source, target, *args, **kwargs: move(
      os.fspath(source), os.fspath(target), *args, **kwargs
    )

  def is_staged(source):
    # TFDS moves files too, before the dataset is published.
    return publishing and '.mtnet_jax-' in source

  publishing, publish = [], staging.publish

  def publish_and_note(*args):
    publishing.append(True)
    publish(*args)

  monkeypatch.setattr(staging, 'publish', publish_and_note)
  for name in ('rename', 'replace'):
    monkeypatch.setattr(os, name, moving(getattr(os, name)))
  expected = KeyboardInterrupt
  if isinstance(error, OSError):
    expected = errors.InputError
  with pytest.raises(expected):
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
def test_dataset_on_another_disk_is_replaced_there(
  built, synthetic_ct, tmp_path, monkeypatch, name
):
  """A link's target is staged beside itself, as renames cannot cross disks."""
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
