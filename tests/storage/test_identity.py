"""A run recognises its own directory and its own checkpoints."""

import json
import os
import shutil

import ml_collections
import pytest

from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import environment
from mtnet_jax.storage import identity
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors


def _config(**changes):
  tree = {
    'seed': 0,
    'variant': 'small',
    'strategy': 'mtnet',
    'matmul_precision': 'highest',
    'coarse_mask': 'hard',
    'seg_net': {'widths': (1, 2)},
    'class_net': {'widths': (3,)},
    'dataset': {'name': 'a'},
    'stages': ('coarse', 'class'),
  }
  return ml_collections.ConfigDict({**tree, **changes}).lock()


@pytest.fixture
def run(tmp_path):
  """A run directory."""
  workdir.claim(tmp_path / 'run', _config())
  return tmp_path / 'run'


def _stage(run, name, **kwargs):
  return checkpoint.Checkpoints(
    workdir.checkpoint_dir(run, name), identity.Identity(run, **kwargs)
  )


def _remove(run):
  shutil.rmtree(run)


def _rename(run):
  run.rename(run.with_name('elsewhere'))


def _replace_by_a_copy(run):
  shutil.copytree(run, run.with_name('copy'))
  run.rename(run.with_name('elsewhere'))
  run.with_name('copy').rename(run)


def _make_again(run):
  """The file system may give the new directory the old inode number."""
  config = (run / 'config.json').read_text()
  shutil.rmtree(run)
  run.mkdir()
  (run / 'config.json').write_text(config)


def _remove_config(run):
  (run / 'config.json').unlink()


def _change_config(run):
  tree = json.loads((run / 'config.json').read_text())
  (run / 'config.json').write_text(json.dumps({**tree, 'seed': 1}))


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    (_remove, 'is gone'),
    (_rename, 'is gone'),
    (_replace_by_a_copy, 'is another one now'),
    (_make_again, 'is another one now'),
    (_remove_config, 'config.json was changed or removed'),
    (_change_config, 'config.json was changed or removed'),
  ),
)
@pytest.mark.parametrize('kind', ('latest', 'best'))
def test_nothing_is_saved_into_another_directory(run, kind, change, message):
  stage = _stage(run, 'coarse')
  save = stage.save_latest if kind == 'latest' else stage.save_best
  save(1, {'x': 1.0}, {})
  change(run)
  before = sorted(run.parent.rglob('*'))
  with pytest.raises(errors.InputError, match=message):
    save(2, {'x': 2.0}, {})
  assert sorted(run.parent.rglob('*')) == before


def test_the_descriptor_is_closed_with_the_identity(run):
  before = os.listdir('/proc/self/fd')
  mine = identity.Identity(run)
  assert len(os.listdir('/proc/self/fd')) == len(before) + 1
  del mine
  assert len(os.listdir('/proc/self/fd')) == len(before)


def test_a_link_to_the_directory_is_accepted(run):
  stage = _stage(run, 'coarse')
  run.rename(run.with_name('on_a_larger_disk'))
  run.symlink_to('on_a_larger_disk')
  stage.save_best(1, {'x': 1.0}, {})
  assert stage.load_best()[0] == {'x': 1.0}


def _replant(run, other, stage):
  """Copies a stage of another run into a run."""
  shutil.copytree(
    workdir.checkpoint_dir(other, stage), workdir.checkpoint_dir(run, stage)
  )


@pytest.mark.parametrize('stage', ('coarse', 'class'))
def test_a_stage_of_another_run_is_refused(run, stage):
  other = run.with_name('other')
  workdir.claim(other, _config(seed=7))
  theirs = _stage(other, stage)
  theirs.save_latest(1, {'x': 1.0}, {})
  theirs.save_best(1, {'x': 1.0}, {})
  _replant(run, other, stage)
  message = (
    f'checkpoints/{stage} is from a run with another .*seed was 7 and is now 0'
  )
  for read in (
    lambda: _stage(run, stage).load_latest({'x': 0.0}),
    lambda: _stage(run, stage).load_best(),
    lambda: workdir.load_variables(run, [stage]),
  ):
    with pytest.raises(errors.InputError, match=message):
      read()
  # Nothing was moved aside as damaged: the other run can still load it.
  assert _stage(other, stage).load_latest({'x': 0.0})[0] == {'x': 1.0}


def test_a_coarse_stage_may_be_of_a_run_whose_later_stages_differ(run):
  other = run.with_name('other')
  workdir.claim(other, _config(class_net={'widths': (9,)}))
  for stage in ('coarse', 'class'):
    _stage(other, stage).save_best(1, {'x': 1.0}, {})
    _replant(run, other, stage)
  assert _stage(run, 'coarse').load_best()[0] == {'x': 1.0}
  with pytest.raises(errors.InputError, match=r'class_net.widths was \[9\]'):
    _stage(run, 'class').load_best()


def test_checkpoints_without_a_config_are_read(run):
  """Earlier versions stored no config."""
  directory = workdir.checkpoint_dir(run, 'coarse')
  checkpoint.Checkpoints(directory).save_best(1, {'x': 1.0}, {})
  assert _stage(run, 'coarse').load_best()[0] == {'x': 1.0}


def test_resuming_with_another_version_is_reported(run, monkeypatch):
  lines = []
  now = environment.versions()
  monkeypatch.setattr(environment, 'versions', lambda: {**now, 'jax': '0.0.1'})
  _stage(run, 'coarse').save_latest(1, {'x': 1.0}, {})
  _stage(run, 'coarse', say=lines.append).load_latest({'x': 0.0})
  assert not lines
  monkeypatch.undo()

  mine = identity.Identity(run, say=lines.append)
  directory = workdir.checkpoint_dir(run, 'coarse')
  stage = checkpoint.Checkpoints(directory, mine)
  stage.load_latest({'x': 0.0})
  stage.load_latest({'x': 0.0})
  assert lines == [
    f'coarse: began with jax 0.0.1, continues with jax {now["jax"]}: its'
    ' numbers may not be reproducible to the last digit with either.'
  ]
  assert mine.earlier_versions == [{**now, 'jax': '0.0.1'}]
  # From now on, checkpoints list both versions.
  stage.save_latest(2, {'x': 2.0}, {})
  _, meta = _stage(run, 'coarse').load_latest({'x': 0.0})
  assert meta['versions'] == [{**now, 'jax': '0.0.1'}, now]


@pytest.mark.parametrize(
  'left',
  ('metrics.json', 'records.csv', 'seen.csv', 'train_log.csv', 'checkpoints/x'),
)
def test_a_run_without_its_config_cannot_be_claimed(tmp_path, left):
  (tmp_path / left).parent.mkdir(exist_ok=True)
  (tmp_path / left).write_text('{}')
  message = f'holds the {left.split("/")[0]} of a run, but its config.json'
  with pytest.raises(errors.InputError, match=message):
    workdir.claim(tmp_path, _config())
  assert not (tmp_path / 'config.json').exists()


def test_results_of_another_run_are_refused(run):
  own = {**workdir.header(_config(), dataset='a', simulated=True), 'test': {}}
  workdir.check_results(own, _config(), run)
  for key, value in (('seed', 1), ('dataset', 'b'), ('strategy', 'joint')):
    with pytest.raises(errors.InputError, match=f'{key} was {value} there'):
      workdir.check_results({**own, key: value}, _config(), run)
