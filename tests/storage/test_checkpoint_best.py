"""The best checkpoint is that of the best epoch in the history."""

import json
import shutil

import numpy as np
import pytest

from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import identity
from mtnet_jax.storage import step_folders
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors


def _row(step, *, best):
  return {'epoch': step // 3, 'step': step, 'best': best}


def _save(checkpoints, history):
  """Saves the end of an epoch of three steps, as a trainer does."""
  row = history[-1]
  if row['best']:
    checkpoints.save_best(row['step'], _best(row['step']), {})
  checkpoints.save_latest(row['step'], {'step': 0}, {'history': history})


def _best(step):
  return {'params': {'x': np.full(3, step)}}


def _steps(directory):
  return sorted(int(path.name) for path in directory.iterdir())


def _best_steps(stage):
  """Returns the step of the best checkpoint, as both loaders find it."""
  found = [checkpoint.load_best(stage)]
  found.append(checkpoint.Checkpoints(stage).load_best())
  return [best and best[0]['params']['x'][0] for best in found]


@pytest.fixture
def stage(tmp_path):
  """Two epochs, the first one the best, and a better one in no history."""
  checkpoints = checkpoint.Checkpoints(tmp_path / 'stage')
  history = [_row(3, best=True)]
  _save(checkpoints, history)
  history.append(_row(6, best=False))
  _save(checkpoints, history)
  checkpoints.save_best(9, _best(9), {})
  return tmp_path / 'stage'


def _history(stage):
  return checkpoint.Checkpoints(stage).load_latest(None)[1]['history']


def test_an_epoch_that_is_in_no_history_is_not_the_best(stage):
  assert _steps(stage / 'best') == [3, 9]
  assert _best_steps(stage) == [3, 3]


def test_a_discarded_best_is_deleted(stage):
  _save(checkpoint.Checkpoints(stage), _history(stage) + [_row(9, best=False)])
  assert _steps(stage / 'best') == [3]
  assert _best_steps(stage) == [3, 3]


def test_a_repeated_epoch_is_the_best_if_it_is_better(stage):
  checkpoints = checkpoint.Checkpoints(stage)
  checkpoints.save_best(9, _best(10), {'of': 'the second process'})
  history = _history(stage) + [_row(9, best=True)]
  checkpoints.save_latest(9, {'step': 0}, {'history': history})
  assert _best_steps(stage) == [10, 10]


def test_the_checkpoint_before_keeps_its_best(stage, capsys):
  history = _history(stage) + [_row(9, best=True)]
  _save(checkpoint.Checkpoints(stage), history)
  assert _steps(stage / 'best') == [3, 9]
  assert _best_steps(stage) == [9, 9]
  shutil.rmtree(stage / 'latest' / '9' / 'state')
  # Training continues from step 6.
  assert _history(stage) == history[:2]
  assert 'latest/9 is damaged' in capsys.readouterr().err
  assert _best_steps(stage) == [3, 3]


def test_there_is_no_best_before_the_first_epoch_ends(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save_latest(2, {'step': 0}, {'history': []})
  checkpoints.save_best(3, _best(3), {})
  assert _best_steps(tmp_path) == [None, None]


def test_a_missing_best_is_named(tmp_path, stage):
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'config.json').write_text('{}')
  there = shutil.copytree(stage, workdir.checkpoint_dir(run, 'coarse'))
  shutil.rmtree(there / 'best' / '3')
  for load in (
    lambda: checkpoint.load_best(there),
    lambda: checkpoint.Checkpoints(there).load_best(),
    lambda: checkpoint.Checkpoints(there).load_best(_history(there)),
    lambda: workdir.load_variables(run, ['coarse']),
  ):
    with pytest.raises(errors.InputError) as error:
      load()
    assert str(error.value) == (
      f'{there}/best/3 is missing, but the history of the stage names it as the'
      f' best checkpoint: delete {there} and run the training command again,'
      ' which trains this stage again; or restore a copy.'
    )


def test_a_best_that_will_be_saved_again_is_not_missed(stage):
  """Earlier versions deleted step 3 as soon as step 9 was saved."""
  history = _history(stage)
  shutil.rmtree(stage / 'best' / '3')
  checkpoint.Checkpoints(stage).check_best(history)
  # A checkpoint within the epoch does not delete step 9.
  checkpoint.Checkpoints(stage).save_latest(
    7, {'step': 0}, {'history': history}
  )
  checkpoint.Checkpoints(stage).check_best(history)
  shutil.rmtree(stage / 'best' / '9')
  with pytest.raises(errors.InputError, match='best/3 is missing'):
    checkpoint.Checkpoints(stage).check_best(history)
  checkpoint.Checkpoints(stage).check_best([])


@pytest.mark.parametrize(
  'meta',
  (
    # Files of earlier versions, or written by anyone.
    {},
    [],
    {'history': None},
    {'history': [3]},
    {'history': [{'epoch': 1, 'best': True}]},
    {'history': [{'step': [3], 'best': True}]},
    {'history': 'best'},
  ),
)
def test_without_a_history_the_newest_is_the_best(stage, meta):
  path = stage / 'latest' / '6' / 'meta' / 'metadata'
  path.write_text(json.dumps(meta))
  assert _best_steps(stage) == [9, 9]


@pytest.mark.parametrize('text', ('', '{"history": [', '[' * 100_000))
def test_with_an_unreadable_history_the_newest_is_the_best(stage, text):
  (stage / 'latest' / '6' / 'meta' / 'metadata').write_text(text)
  assert _best_steps(stage) == [9, 9]


def test_the_best_loads_without_latest(stage):
  shutil.rmtree(stage / 'latest')
  assert checkpoint.load_best(stage)[0]['params']['x'][0] == 9


def test_the_best_loads_from_a_copy_without_states(stage):
  """Downloads leave out the states."""
  for step in (3, 6):
    shutil.rmtree(stage / 'latest' / str(step) / 'state')
    (stage / 'latest' / str(step) / '_CHECKPOINT_METADATA').unlink()
  assert checkpoint.load_best(stage)[0]['params']['x'][0] == 3


def test_a_stage_that_starts_again_saves_its_epochs(stage):
  """Its latest checkpoints were deleted, but its best ones were not."""
  shutil.rmtree(stage / 'latest')
  checkpoints = checkpoint.Checkpoints(stage)
  checkpoints.save_best(3, _best(4), {'of': 'the second time'})
  assert _steps(stage / 'best') == [3]
  assert _best_steps(stage) == [4, 4]


def test_a_half_deleted_step_is_not_a_checkpoint(stage, monkeypatch):
  def killed(folder):
    if folder.exists():
      (folder / '_CHECKPOINT_METADATA').unlink()
      raise KeyboardInterrupt

  history = _history(stage) + [_row(9, best=False)]
  checkpoints = checkpoint.Checkpoints(stage)
  with monkeypatch.context() as patched:
    patched.setattr(step_folders, '_delete', killed)
    with pytest.raises(KeyboardInterrupt):
      _save(checkpoints, history)
  assert _best_steps(stage) == [3, 3]
  assert _steps(stage / 'best') == [3]


def test_nothing_is_moved_aside_in_another_runs_directory(stage, tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'config.json').write_text('{}')
  there = shutil.copytree(stage, workdir.checkpoint_dir(run, 'coarse'))
  shutil.rmtree(there / 'latest' / '6' / 'state')
  checkpoints = checkpoint.Checkpoints(there, identity.Identity(run))
  shutil.copytree(run, tmp_path / 'copy')
  run.rename(tmp_path / 'elsewhere')
  (tmp_path / 'copy').rename(run)
  with pytest.raises(errors.InputError, match='is another one now'):
    checkpoints.load_latest(None)
  assert _steps(there / 'latest') == [3, 6]
