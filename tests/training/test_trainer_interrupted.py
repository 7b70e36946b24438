"""A stopped stage resumes exactly; one that is not finite names the batch."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import step_job

from mtnet_jax.data import feeding
from mtnet_jax.storage import identity as identity_lib
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors
from mtnet_jax.system import stopping
from mtnet_jax.training import progress
from mtnet_jax.training import step as step_lib
from mtnet_jax.training import trainer as trainer_lib

# Each test needs a compiled step.
pytestmark = pytest.mark.slow

# 6 nodules, 2 views, batch 4: epochs of three steps.
_STEPS = 3

_trainer = step_job.short_trainer


class _StopsAt(progress.Silent):
  """An observer that stops the run after a step, as SIGTERM does."""

  def __init__(self, step):
    self._step = step

  def step(self, step, loss):
    if step == self._step:
      stopping._asked.set()


def _stop(trainer, observer):
  """Runs a stage until it is stopped."""
  try:
    with pytest.raises(stopping.Stopped):
      trainer.run(observer)
  finally:
    stopping._asked.clear()


def _without_seconds(history):
  return [{**row, 'seconds': None} for row in history]


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  directory = tmp_path_factory.mktemp('undisturbed')
  best, history = _trainer(directory).run(progress.Silent())
  return best, history, _trainer(directory)._checkpoints.load_latest(None)


def _assert_ends_like(undisturbed, directory):
  best, history, (state, _) = undisturbed
  own_best, own_history = _trainer(directory).run(progress.Silent())
  assert _without_seconds(own_history) == _without_seconds(history)
  own_state, meta = _trainer(directory)._checkpoints.load_latest(None)
  assert _without_seconds(meta['history']) == _without_seconds(history)
  for ours, theirs in ((own_best, best), (own_state, state)):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize('step', (1, 2, 4))
def test_stopped_after_a_step(undisturbed, tmp_path, step, capsys):
  _stop(_trainer(tmp_path), _StopsAt(step))
  assert (
    f'SIGTERM: stopped. The same command resumes at step {step} of 6 of stage'
    " 'coarse'." in capsys.readouterr().err
  )
  state, _ = _trainer(tmp_path)._checkpoints.load_latest(None)
  assert state['step'] == step
  _assert_ends_like(undisturbed, tmp_path)


def test_the_seconds_of_an_epoch_include_those_before_a_stop(
  tmp_path, monkeypatch
):
  """By this clock, every step takes ten seconds."""
  now = [0.0]

  def timed(directory):
    trainer = _trainer(directory)
    run_steps = trainer.steps

    def steps(state, step, *, num_steps):
      now[0] += 10 * num_steps
      return run_steps(state, step, num_steps=num_steps)

    monkeypatch.setattr(trainer, 'steps', steps)
    return trainer

  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(trainer_lib, 'time', clock)
  _stop(timed(tmp_path), _StopsAt(4))
  now[0] += 1000  # The time between the two runs does not count.
  _, history = timed(tmp_path).run(progress.Silent())
  assert [row['seconds'] for row in history] == [30, 30]


class _Renames(progress.Silent):
  """An observer that renames a folder after a step, as a user might."""

  def __init__(self, step, old, new):
    self._step, self._old, self._new = step, old, new

  def step(self, step, loss):
    if step == self._step:
      self._old.rename(self._new)


@pytest.mark.parametrize('step', (1, 4))
def test_a_run_whose_directory_is_renamed_ends(undisturbed, tmp_path, step):
  old, new = tmp_path / 'old', tmp_path / 'new'
  workdir_lib.claim(old, step_job.coarse_config())

  def trainer():
    return _trainer(old / 'coarse', identity_lib.Identity(old))

  with pytest.raises(errors.InputError, match='is gone: it was moved or'):
    trainer().run(_Renames(step, old, new))
  assert not old.exists()
  new.rename(old)
  best, history = trainer().run(progress.Silent())
  assert _without_seconds(history) == _without_seconds(undisturbed[1])
  jax.tree.map(np.testing.assert_array_equal, best, undisturbed[0])


@pytest.mark.parametrize('step', (3, 6))
def test_stopped_before_the_validation(undisturbed, tmp_path, step):
  # The step that ends an epoch: validation does not begin.
  _stop(_trainer(tmp_path), _StopsAt(step))
  state, meta = _trainer(tmp_path)._checkpoints.load_latest(None)
  assert state['step'] == step
  assert len(meta['history']) == step // _STEPS - 1
  _assert_ends_like(undisturbed, tmp_path)


@pytest.mark.parametrize('call', (0, 3))
def test_stopped_while_a_call_is_dispatched(
  undisturbed, tmp_path, call, monkeypatch
):
  """The first call after a checkpoint; the state is donated to it."""
  trainer = _trainer(tmp_path)
  run_steps = trainer.steps

  def stopped(state, step, *, num_steps):
    after = run_steps(state, step, num_steps=num_steps)
    if step == call:
      # The signal handler does this if no thread has unsaved work.
      assert not stopping.holds()
      stopping._asked.set()
      raise stopping.Stopped
    return after

  monkeypatch.setattr(trainer, 'steps', stopped)
  _stop(trainer, progress.Silent())
  loaded = _trainer(tmp_path)._checkpoints.load_latest(None)
  assert (loaded[0]['step'] if loaded else 0) == call
  _assert_ends_like(undisturbed, tmp_path)


def test_stopped_within_the_validation(undisturbed, tmp_path, monkeypatch):
  trainer = _trainer(tmp_path)
  check, calls = stopping.check, []

  def third_time():
    # The loop checks once after each call, the validation before each batch.
    calls.append(None)
    if len(calls) == _STEPS + 1:
      stopping._asked.set()
    check()

  monkeypatch.setattr(stopping, 'check', third_time)
  _stop(trainer, progress.Silent())
  monkeypatch.undo()
  state, meta = _trainer(tmp_path)._checkpoints.load_latest(None)
  assert (state['step'], meta['history']) == (_STEPS, [])
  _assert_ends_like(undisturbed, tmp_path)


def _batch_of(trainer, step):
  order = feeding.epoch_order(
    6, views=2, batch_size=4, seed=(trainer._seed, (step - 1) // _STEPS)
  )
  first = (step - 1) % _STEPS * 4
  return order[first : first + 4]


def _assert_stops(trainer, directory, step):
  with pytest.raises(errors.InputError) as e:
    trainer.run(progress.Silent())
  assert f'was not finite at step {step};' in str(e.value)
  path = directory / 'not_finite.json'
  assert f'{path} lists the nodules of its batch' in str(e.value)
  report = json.loads(path.read_text())
  batch = _batch_of(trainer, step)
  assert report['stage'] == 'coarse'
  assert report['simulated'] is True
  assert report['step'] == step
  assert report['nodule_ids'] == [f'nodule-{i}' for i in batch[:, 0]]
  assert report['views'] == batch[:, 1].tolist()
  return report


def test_a_loss_that_is_not_finite_stops_the_stage(tmp_path):
  # The parameters overflow in the first step.
  trainer = _trainer(tmp_path, learning_rate=1e38)
  report = _assert_stops(trainer, tmp_path, 2)
  assert report['loss'] == 'nan'
  # There is no checkpoint of the first step, which would be useless.
  assert trainer._checkpoints.load_latest(None) is None


def test_the_last_good_checkpoint_stays(tmp_path):
  _stop(_trainer(tmp_path), _StopsAt(2))
  trainer = _trainer(tmp_path)
  trainer._hyperparams['margin'] = np.float32(np.nan)
  trainer._hyperparams['rank_weight'] = np.float32(1)
  _assert_stops(trainer, tmp_path, 3)
  state, _ = trainer._checkpoints.load_latest(None)
  assert state['step'] == 2
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_a_gradient_that_is_not_finite_stops_the_stage(tmp_path, monkeypatch):
  original = step_lib.loss_of_task

  def infinitely_steep(task, logits, targets, hyperparams, **kwargs):
    # Adds 0, whose derivative is 0 / 0.
    steep = jnp.sqrt(jnp.sum(logits * 0, axis=(1, 2, 3)))
    return original(task, logits, targets, hyperparams, **kwargs) + steep

  step_lib.mapped.cache_clear()
  monkeypatch.setattr(step_lib, 'loss_of_task', infinitely_steep)
  try:
    report = _assert_stops(_trainer(tmp_path), tmp_path, 1)
  finally:
    step_lib.mapped.cache_clear()
  assert np.isfinite(report['loss'])


def test_a_batch_larger_than_the_dataset_repeats_it(tmp_path):
  # The order of the 12 views is repeated up to 32.
  trainer = _trainer(tmp_path, batch_size=32)
  assert trainer.steps_per_epoch == 1
  batch = trainer.feed.order_of(0)
  assert batch.shape == (32, 2)
  assert {tuple(pair) for pair in batch.tolist()} == {
    (index, view) for index in range(6) for view in range(2)
  }
  np.testing.assert_array_equal(batch[12:24], batch[:12])
