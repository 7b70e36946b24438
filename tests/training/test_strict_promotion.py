"""Nothing depends on JAX's implicit promotion, which its user may forbid."""

import functools

import jax
import jax.numpy as jnp
import pytest
import step_job

from mtnet_jax import losses
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import predictor
from mtnet_jax.models import strategies
from mtnet_jax.system import devices
from mtnet_jax.training import optim
from mtnet_jax.training import stages
from mtnet_jax.training import start
from mtnet_jax.training import step


def _abstract(dtype, *shape):
  return jax.ShapeDtypeStruct(shape, dtype)


@pytest.fixture(autouse=True)
def strict():
  # Traces of before would be used again.
  jax.clear_caches()
  with (
    jax.numpy_rank_promotion('raise'),
    jax.numpy_dtype_promotion('strict'),
  ):
    yield
  jax.clear_caches()


def _trace_step(config, stage):
  nets = nets_lib.make_nets(config, axis_name=devices.AXIS)
  upstream = strategies.upstream_names(config.strategy, stage.name)
  tx = optim.make_optimizer(
    learning_rate=stage.learning_rate,
    schedule=stage.schedule,
    total_steps=9,
    weight_decay=1e-4,
  )
  variables = start.shapes(stage, size=config.image_size)
  state = step.TrainState(
    step=_abstract('int32'),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=jax.eval_shape(tx.init, variables['params']),
    loss_sum=_abstract('float32'),
    averaged=variables,
  )
  data = {
    'image': _abstract('int16', 9, 64, 64),
    'mask': _abstract('uint8', 9, 64, 64),
    'label': _abstract('int32', 9),
  }
  batch = {key: _abstract('int32', 4) for key in ('index', 'view', 'position')}
  hyperparams = {'seed': _abstract('uint32'), **step.loss_hyperparams(config)}
  shapes = nets_lib.variable_shapes(config)
  jax.make_jaxpr(
    functools.partial(
      step.train_step,
      stage=stage,
      nets=tuple((name, nets[name]) for name in upstream),
      tx=tx,
      options=step.step_options(config, steps_per_epoch=3),
    ),
    axis_env=[(devices.AXIS, 1)],
  )(state, {name: shapes[name] for name in upstream}, data, batch, hyperparams)


def _trace_prediction(config):
  nets = nets_lib.make_nets(config)
  jax.eval_shape(
    functools.partial(
      predictor.predict_step,
      nets=nets,
      **predictor.options(config),
    ),
    nets_lib.variable_shapes(config),
    _abstract('int16', 2, 64, 64),
  )


@pytest.mark.parametrize(
  ('strategy', 'dtype'),
  (
    *((strategy, 'float32') for strategy in strategies.STRATEGIES),
    # Between them these have every layer.
    ('mtnet', 'bfloat16'),
    ('single', 'bfloat16'),
  ),
)
def test_steps_and_predictions_of_every_strategy(strategy, dtype):
  changes = {
    'dtype': dtype,
    'weight_average': 0.99,
    'cross_entropy_weight': 1.0,
  }
  config = step_job.config_of_strategy(strategy, changes)
  for stage in stages.make_stages(config):
    _trace_step(config, stage)
  _trace_prediction(config)


def test_losses_of_arrays_and_numbers():
  probs, mask = jnp.full((2, 8, 8), 0.5), jnp.ones((2, 8, 8))
  for top_k in (3, jnp.int32(3)):
    found = losses.hybrid_loss(probs, mask, top_k=top_k, max_top_k=3)
    assert found.dtype == jnp.float32
