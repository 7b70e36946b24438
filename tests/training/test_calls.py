"""Steps that share a call give the same results as single steps."""

import contextlib
import json
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import step_job

from mtnet_jax.system import errors
from mtnet_jax.system import stopping
from mtnet_jax.training import calls as calls_lib
from mtnet_jax.training import progress


def _pace(backend, monkeypatch, *, steps_per_call=0):
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  return calls_lib.Pace(
    ml_collections.ConfigDict({'steps_per_call': steps_per_call})
  )


@pytest.mark.parametrize(
  ('seconds', 'expected'),
  ((0.0124, 20), (0.1, 2), (0.2, 1), (3.0, 1), (0.0078125, 32)),
)
def test_steps_of_a_quarter_of_a_second(monkeypatch, seconds, expected):
  pace = _pace('gpu', monkeypatch)
  # The first call includes the compilation, and one of the others a delay. A
  # call of one step takes twice as long as a step in a loop.
  for elapsed in (90.0, 2 * seconds, 9 * seconds, 2 * seconds):
    assert pace.is_timing and pace.num_steps(100) == 1
    pace.record(1, elapsed)
  for elapsed in (seconds, 9 * seconds, seconds):
    assert pace.is_timing
    steps = pace.num_steps(100)
    assert steps == max(1, expected // 2)
    pace.record(steps, elapsed * steps)
  assert not pace.is_timing and pace.step_seconds == pytest.approx(seconds)
  assert pace.num_steps(100) == expected
  # No call goes beyond the end of an epoch.
  assert pace.num_steps(3) == min(expected, 3)
  assert pace.max_steps == 32


def test_one_step_a_call_on_a_cpu(monkeypatch):
  pace = _pace('cpu', monkeypatch)
  for elapsed in (1.0, 0.001, 0.001, 0.001):
    pace.record(1, elapsed)
  assert (pace.max_steps, pace.num_steps(100)) == (1, 1)


def test_a_number_in_the_config_is_used(monkeypatch):
  pace = _pace('cpu', monkeypatch, steps_per_call=5)
  assert (pace.max_steps, pace.num_steps(100), pace.num_steps(2)) == (5, 5, 2)
  for elapsed in (60.0, 20.0, 20.0, 20.0):
    pace.record(5, elapsed)
  assert (pace.step_seconds, pace.num_steps(100)) == (4.0, 5)


def test_several_processes_wait_for_the_same_calls(monkeypatch):
  """Even where later calls are done: see the rule in `training/calls.py`."""
  done = {'loss': jnp.ones((1, 2)), 'finite': jnp.ones((1, 2), bool)}
  jax.block_until_ready(done)
  for processes, steps in ((2, [1, 2]), (1, [1, 2, 3, 4, 5])):
    monkeypatch.setattr(jax, 'process_count', lambda n=processes: n)
    records = _Records()
    calls = calls_lib.Calls(
      lambda state, step, num_steps: (state, done),
      pace=mock.Mock(
        is_timing=False, num_steps=lambda remaining: min(remaining, 2)
      ),
      observer=records,
      on_not_finite=None,
    )
    for first in (0, 2, 4):
      calls.dispatch(None, first, 5 - first)
    stopping.release()
    assert [step for step, _ in records.steps] == steps


# 6 nodules, 3 views, batch 4: epochs of five steps.
_STEPS, _EPOCHS = 5, 2


def _trainer(directory, steps_per_call, **changes):
  config = step_job.coarse_config()
  with config.unlocked():
    config.coarse_stage.epochs = _EPOCHS
    config.views_per_image = 3
    config.steps_per_call = steps_per_call
    config.coarse_stage.update(changes)
  data = step_job.made_up_nodules(6)
  data.info['nodule_id'] = np.array([f'nodule-{i}' for i in range(6)])
  return step_job.coarse_trainer(config, data, directory)


class _Records(progress.Silent):
  """Records the losses; stops the run after a step, as SIGTERM does."""

  def __init__(self, stop_at=None):
    self.steps = []
    self._stop_at = stop_at

  def step(self, step, loss):
    self.steps.append((step, loss))
    if step == self._stop_at:
      stopping._asked.set()


def _run(trainer, *, num_steps=None):
  """Trains; returns the steps, the best variables, history and last state."""
  records = _Records()
  pace = contextlib.nullcontext()
  if num_steps:
    pace = mock.patch.object(
      calls_lib.Pace,
      'num_steps',
      lambda _, remaining: min(remaining, num_steps),
    )
  with pace:
    best, history = trainer.run(records)
  last, _ = trainer._checkpoints.load_latest(None)
  history = [{**row, 'seconds': None} for row in history]
  return records.steps, best, history, last


@pytest.fixture(scope='module')
def one_by_one(tmp_path_factory):
  """The results of one step a call, in a program that supports four."""
  return _run(_trainer(tmp_path_factory.mktemp('one_by_one'), 4), num_steps=1)


@pytest.mark.slow
@pytest.mark.parametrize('num_steps', (3, 4))
def test_bits_do_not_depend_on_how_many_steps_share_a_call(
  one_by_one, tmp_path, num_steps
):
  steps, *_ = one_by_one
  assert [step for step, _ in steps] == list(range(1, _STEPS * _EPOCHS + 1))
  assert len({loss for _, loss in steps}) == len(steps)
  found = _run(_trainer(tmp_path, 4), num_steps=num_steps)
  jax.tree.map(np.testing.assert_array_equal, found, one_by_one)


@pytest.mark.slow
def test_the_program_without_a_loop_differs_by_rounding(one_by_one, tmp_path):
  steps, *_ = _run(_trainer(tmp_path, 1))
  # The differences of 1e-7 in the first step grow from step to step.
  np.testing.assert_allclose(steps, one_by_one[0], rtol=1e-4)
  np.testing.assert_allclose(steps[0], one_by_one[0][0], rtol=1e-6)


@pytest.mark.slow
def test_a_stop_waits_for_the_call_and_resumes_exactly(one_by_one, tmp_path):
  try:
    with pytest.raises(stopping.Stopped):
      _trainer(tmp_path, 4).run(_Records(stop_at=2))
  finally:
    stopping._asked.clear()
  state, _ = _trainer(tmp_path, 4)._checkpoints.load_latest(None)
  assert state['step'] == 4
  _, *found = _run(_trainer(tmp_path, 4))
  jax.tree.map(np.testing.assert_array_equal, tuple(found), one_by_one[1:])


@pytest.mark.slow
def test_the_step_that_is_not_finite_is_found_within_its_call(tmp_path):
  # The parameters overflow in the first step.
  trainer = _trainer(tmp_path, 4, learning_rate=1e38)
  with pytest.raises(errors.InputError, match='was not finite at step 2;'):
    trainer.run(progress.Silent())
  report = json.loads((tmp_path / 'not_finite.json').read_text())
  assert report['step'] == 2
  batch = trainer.feed.order_of(1)
  assert report['nodule_ids'] == [f'nodule-{i}' for i in batch[:, 0]]
