"""A stage ends with the epoch that is the best in its history."""

import shutil

import jax
import numpy as np
import pytest
import step_job

from mtnet_jax.storage import checkpoint
from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors
from mtnet_jax.training import progress

# Each test needs a compiled step.
pytestmark = pytest.mark.slow


def _trainer(directory, *scores, identity=None):
  """A trainer whose epochs have these validation scores."""
  trainer = step_job.short_trainer(directory, identity)
  remaining = list(scores)
  trainer.validate = lambda _: {'jaccard': remaining.pop(0)}
  return trainer


class _Killed(BaseException):
  pass


def _kill_before_the_second_save(trainer):
  """Kills a run when the second epoch's best is saved and its latest is not."""
  save, saves = trainer._save, []

  def killed(*args):
    saves.append(args)
    if len(saves) == 2:
      raise _Killed
    save(*args)

  trainer._save = killed
  with pytest.raises(_Killed):
    trainer.run(progress.Silent())


@pytest.mark.parametrize(
  ('score', 'epoch'), ((0.45, 1), (np.nan, 1), (0.55, 2), (0.6, 2))
)
def test_a_repeated_epoch_may_have_another_score(tmp_path, score, epoch):
  _kill_before_the_second_save(_trainer(tmp_path, 0.5, 0.6))
  assert checkpoint.load_best(tmp_path)[1]['epoch'] == 1
  epochs = {
    int(path.name) // 3: checkpoint.Checkpoints(tmp_path)._best.restore(
      int(path.name)
    )['state']
    for path in (tmp_path / 'best').iterdir()
  }
  # The score differs, as with another version or on another machine.
  best, history = _trainer(tmp_path, score).run(progress.Silent())
  assert [row['best'] for row in history] == [True, epoch == 2]
  found, meta = checkpoint.load_best(tmp_path)
  assert meta['epoch'] == epoch
  for variables in (best, found):
    jax.tree.map(np.testing.assert_array_equal, variables, epochs[epoch])
  differ = jax.tree.map(np.array_equal, epochs[1], epochs[2])
  assert not all(jax.tree.leaves(differ))


def test_a_missing_best_checkpoint_is_reported_before_training(tmp_path):
  trainer = _trainer(tmp_path, 0.5, 0.4)
  _kill_before_the_second_save(trainer)
  shutil.rmtree(tmp_path / 'best' / '3')
  trainer = _trainer(tmp_path)
  trainer.steps = None
  with pytest.raises(
    errors.InputError, match='best/3 is missing, but the history'
  ):
    trainer.run(progress.Silent())


def test_a_stage_without_a_best_epoch_is_an_error(tmp_path):
  with pytest.raises(errors.InputError, match='no epoch is the best one'):
    _trainer(tmp_path, np.nan, np.nan).run(progress.Silent())


def _swap_after_loading(trainer, swap):
  load = trainer._starting_state

  def loaded():
    state = load()
    swap()
    return state

  trainer._starting_state = loaded


def _swap_while_it_validates(trainer, swap):
  def validate(_):
    swap()
    # Not the best score: saving the best would be refused before the log is
    # written.
    return {'jaccard': 0.4}

  trainer.validate = validate


def _swap_before_a_step_that_is_not_finite(trainer, swap):
  run_steps = trainer.steps

  def steps(*args, **kwargs):
    swap()
    return run_steps(*args, **kwargs)

  trainer._hyperparams['margin'] = np.float32(np.nan)
  trainer._hyperparams['rank_weight'] = np.float32(1)
  trainer.steps = steps


def _files(folder):
  return {
    path.relative_to(folder): path.is_file() and path.read_bytes()
    for path in folder.rglob('*')
  }


@pytest.mark.parametrize(
  'swap_at',
  (
    _swap_after_loading,
    _swap_while_it_validates,
    _swap_before_a_step_that_is_not_finite,
  ),
)
def test_nothing_is_written_into_a_run_directory_that_was_replaced(
  tmp_path, swap_at
):
  run, other = tmp_path / 'run', tmp_path / 'other'
  config = step_job.coarse_config()
  workdir_lib.claim(run, config)
  with config.unlocked():
    config.seed = 99
  workdir_lib.claim(other, config)
  directory = workdir_lib.checkpoint_dir(run, 'coarse')
  workdir_lib.checkpoint_dir(other, 'coarse').mkdir(parents=True)
  for name in ('train_log.csv', 'checkpoints/coarse/not_finite.json'):
    (other / name).write_text('theirs')
  theirs = _files(other)

  def swap():
    run.rename(tmp_path / 'moved')
    other.rename(run)

  _kill_before_the_second_save(
    _trainer(directory, 0.5, 0.4, identity=identity_lib.Identity(run))
  )
  trainer = _trainer(directory, identity=identity_lib.Identity(run))
  swap_at(trainer, swap)
  with pytest.raises(errors.InputError, match='run is another one now'):
    trainer.run(progress.Observer(run, simulated=True, log_every=1))
  assert _files(run) == theirs
