"""The moving average of the weights."""

import jax
import made_run
import numpy as np
import pytest
import step_job

from benchmarks import problem
from mtnet_jax.system import devices

_DECAY = 0.5


def _trainer(directory, **changes):
  """Returns a trainer of a tiny coarse net, on 8 discs."""
  config = made_run.config_of()
  with config.unlocked():
    config.views_per_image = 1
    config.coarse_stage.batch_size = 4
    config.update_from_flattened_dict(changes)
  return step_job.coarse_trainer(config, problem.discs(8), directory)


def _host(tree):
  return jax.tree.map(np.array, jax.device_get(tree))


def test_the_average_is_as_derived_by_hand(tmp_path):
  trainer = _trainer(tmp_path, weight_average=_DECAY)
  state = trainer.put_on_devices(trainer.init_state())
  expected = {
    'params': _host(state.params),
    'batch_stats': _host(state.batch_stats),
  }
  for step in range(6):
    state, _ = trainer.steps(state, step)
    now = {
      'params': _host(state.params),
      'batch_stats': _host(state.batch_stats),
    }
    # 1/10, 2/11, 3/12, 4/13, 5/14, 6/15: all are less than the decay.
    keep = min(_DECAY, (1 + step) / (10 + step))
    expected = jax.tree.map(
      lambda mean, x, keep=keep: keep * mean + (1 - keep) * x, expected, now
    )
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
    _host(state.averaged),
    expected,
  )
  # The average is validated.
  assert state.variables is state.averaged
  kernel = ('backbone', 'conv1', 'kernel')
  mean, last = state.averaged['params'], state.params
  for key in kernel:
    mean, last = mean[key], last[key]
  assert not np.array_equal(mean, last)


def test_the_average_does_not_change_the_training(tmp_path):
  states = []
  for decay in (0.0, _DECAY):
    trainer = _trainer(tmp_path / str(decay), weight_average=decay)
    state = trainer.put_on_devices(trainer.init_state())
    for step in range(2):
      state, _ = trainer.steps(state, step)
    states.append(state)
  plain, averaged = states
  assert plain.averaged is None
  assert plain.variables['params'] is plain.params
  # The two programs may round differently.
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    _host(plain.params),
    _host(averaged.params),
  )


@pytest.mark.parametrize('decay', (0.0, _DECAY))
def test_a_saved_state_is_restored(tmp_path, decay):
  trainer = _trainer(tmp_path, weight_average=decay)
  state = trainer.put_on_devices(trainer.init_state())
  state, _ = trainer.steps(state, 0)
  trainer._save(state, 1, [])
  again, history = _trainer(tmp_path, weight_average=decay)._starting_state()
  assert history == []
  saved = devices.unreplicate(state)
  assert jax.tree.structure(again) == jax.tree.structure(saved)
  jax.tree.map(np.testing.assert_array_equal, again, saved)


@pytest.mark.parametrize('decay', (0.0, _DECAY))
def test_the_average_is_validated_and_saved(tmp_path, decay, monkeypatch):
  trainer = _trainer(tmp_path, weight_average=decay)
  state = trainer.put_on_devices(trainer.init_state())
  state, _ = trainer.steps(state, 0)
  kept = {'params': state.params, 'batch_stats': state.batch_stats}
  kept = devices.unreplicate(state.averaged if decay else kept)
  validated = []
  monkeypatch.setattr(
    trainer, 'validate', lambda x: validated.append(x) or {'jaccard': 0.5}
  )
  trainer._end_epoch(state, 2, [])
  best, _ = trainer._checkpoints.load_best()
  for found in (best, devices.unreplicate(validated[0])):
    jax.tree.map(np.testing.assert_array_equal, found, kept)
