"""Nothing needs JAX's implicit type promotion, which users may forbid."""

import functools

import jax
import jax.numpy as jnp
import pytest
import step_job
import traced_step

from mtnet_jax import losses
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import predictor
from mtnet_jax.models import strategies
from mtnet_jax.training import stages


@pytest.fixture(autouse=True)
def strict():
  # Earlier traces would be used again.
  jax.clear_caches()
  with (
    jax.numpy_rank_promotion('raise'),
    jax.numpy_dtype_promotion('strict'),
  ):
    yield
  jax.clear_caches()


def _trace_prediction(config):
  nets = nets_lib.make_nets(config)
  jax.eval_shape(
    functools.partial(
      predictor.predict_step,
      nets=nets,
      **predictor.options(config),
    ),
    nets_lib.variable_shapes(config),
    traced_step.abstract('int16', 2, 64, 64),
  )


@pytest.mark.parametrize(
  ('strategy', 'dtype'),
  (
    *((strategy, 'float32') for strategy in strategies.STRATEGIES),
    # Together, these two have every layer.
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
    traced_step.trace(config, stage)
  _trace_prediction(config)


def test_losses_of_arrays_and_numbers():
  probs, mask = jnp.full((2, 8, 8), 0.5), jnp.ones((2, 8, 8))
  for top_k in (3, jnp.int32(3)):
    found = losses.hybrid_loss(probs, mask, top_k=top_k, max_top_k=3)
    assert found.dtype == jnp.float32
