"""Runs that differ in the hyperparameters of the loss share their programs."""

import jax
import pytest
import step_job

from mtnet_jax.models import predictor
from mtnet_jax.system import devices
from mtnet_jax.training import step

_GRID = tuple((top_k, margin) for top_k in (10, 50) for margin in (0.1, 0.4))


@pytest.fixture
def compiled():
  """Names of the functions that XLA compiles during the test, in order."""
  names = []

  def listen(event, _, **kwargs):
    if event == '/jax/core/compile/backend_compile_duration':
      names.append(kwargs['fun_name'])

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield names
  jax.monitoring.unregister_event_duration_listener(listen)


def _coarse_trainer(directory, *, max_top_k, top_k, margin, seed=0):
  config = step_job.coarse_config()
  with config.unlocked():
    config.seed = seed
    config.rank_loss.weight = 1.0
    config.rank_loss.max_top_k = max_top_k
    config.rank_loss.top_k = top_k
    config.rank_loss.margin = margin
  return step_job.coarse_trainer(config, step_job.made_up_nodules(4), directory)


def _loss(trainer):
  """Runs a step and a validation, and returns the loss of the step."""
  state = trainer.put_on_devices(trainer.init_state())
  state, values = trainer.steps(state, 0)
  trainer.validate({'params': state.params, 'batch_stats': state.batch_stats})
  return float(devices.unreplicate(values['loss'])[0])


def test_trainers_of_a_grid_hold_the_same_functions(tmp_path):
  first, *others = (
    _coarse_trainer(
      tmp_path, max_top_k=50, top_k=top_k, margin=margin, seed=seed
    )
    for seed, (top_k, margin) in enumerate(_GRID)
  )
  for other in others:
    assert other._steps is first._steps
    assert other._predictor._step is first._predictor._step
    assert other._hyperparams != first._hyperparams
  # Without `max_top_k`, `top_k` is compiled into the program.
  ten, fifty = (
    _coarse_trainer(tmp_path, max_top_k=0, top_k=top_k, margin=0.3)._steps
    for top_k in (10, 50)
  )
  assert ten is not fifty


@pytest.mark.slow
def test_a_grid_of_four_points_compiles_once(tmp_path, compiled):
  # Other tests of this process may have compiled the same programs.
  step.mapped.cache_clear()
  predictor._mapped.cache_clear()
  losses = set()
  for point, (top_k, margin) in enumerate(_GRID):
    trainer = _coarse_trainer(
      tmp_path, max_top_k=50, top_k=top_k, margin=margin, seed=point // 2
    )
    losses.add(_loss(trainer))
    if point == 0:
      # `devices.mapped` makes the steps of training and validation.
      assert compiled.count('jit(traced)') == 2
      del compiled[:]
    assert compiled == []
  # The hyperparameters have an effect on the loss.
  assert len(losses) == len(_GRID)
