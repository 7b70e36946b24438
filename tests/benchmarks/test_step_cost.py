"""What a step sends and keeps is counted right."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import project_configs
import pytest

from benchmarks import step_cost
from mtnet_jax.ops.native import library
from mtnet_jax.training import stages
from mtnet_jax.training import start


def test_sums_inside_of_loops_and_calls_are_found():
  def program(x):
    lax.pmean(x, 'batch')
    return jax.jit(lambda x: lax.psum((x[0], x), 'batch'))(x)

  jaxpr = jax.make_jaxpr(program, axis_env=[('batch', 2)])(jnp.ones((3, 5)))
  assert sorted(step_cost.summed_bytes(jaxpr.jaxpr)) == [20, 60, 60]


@pytest.fixture(scope='module')
def stages_and_config():
  config = project_configs.CONFIGS.get_config('test')
  return {stage.name: stage for stage in stages.make_stages(config)}, config


@pytest.fixture(scope='module')
def cost_of(stages_and_config):
  """`step_cost.cost_of` a stage by name: tracing takes seconds."""
  all_stages, config = stages_and_config
  return functools.cache(
    lambda name: step_cost.cost_of(all_stages[name], config)
  )


@pytest.mark.parametrize('name', ('coarse', 'class'))
def test_counts_of_a_step(stages_and_config, cost_of, name):
  all_stages, config = stages_and_config
  cost = cost_of(name)
  shapes, coarse = (
    start.shapes(all_stages[which], size=config.image_size)
    for which in (name, 'coarse')
  )

  def count(tree):
    return sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(tree))

  parameters = count(shapes['params'])
  statistics = count(shapes['batch_stats'])
  assert cost.parameters == parameters
  assert cost.upstream_bytes == (4 * count(coarse) if name == 'class' else 0)
  # Gradients, running statistics and the loss.
  assert cost.gradient_bytes == 4 * (parameters + statistics + 1)
  # Of each channel that has a mean and a variance: two sums forward, and two
  # backward, of four bytes.
  assert cost.statistics_bytes == 4 * 4 * statistics / 2
  norms = len(jax.tree.leaves(shapes['batch_stats'])) // 2
  assert cost.rounds == 2 * norms + 1


def test_counts_do_not_depend_on_the_machine(
  stages_and_config, cost_of, monkeypatch
):
  all_stages, config = stages_and_config
  here = cost_of('coarse')
  monkeypatch.setattr(library, 'loaded', lambda: False)
  assert step_cost.cost_of(all_stages['coarse'], config) == here


def test_what_is_kept_grows_with_the_type_and_the_image(
  stages_and_config, cost_of
):
  _, config = stages_and_config
  cost = cost_of('coarse')
  assert cost.largest_bytes < cost.kept_bytes
  config = config.copy_and_resolve_references().unlock()
  config.image_size *= 2
  larger = step_cost.cost_of(stages.make_stages(config)[0], config)
  assert 3 < larger.kept_bytes / cost.kept_bytes < 4
  assert larger.gradient_bytes == cost.gradient_bytes
  config.dtype = 'bfloat16'
  shorter = step_cost.cost_of(stages.make_stages(config)[0], config)
  assert 0.5 <= shorter.kept_bytes / larger.kept_bytes < 0.6


def test_memory_and_time_by_hand():
  cost = step_cost.Cost(
    parameters=1000,
    upstream_bytes=4000,
    gradient_bytes=6000,
    statistics_bytes=2000,
    rounds=10,
    kept_bytes=700,
    largest_bytes=100,
  )
  # 16 bytes a parameter; 700 + 3 x 100 an image.
  assert cost.fixed_bytes == 20_000
  assert cost.image_bytes(work=3) == 1000
  assert cost.largest_batch(24_999, work=3) == 4
  assert cost.largest_batch(19_999, work=3) == 0
  # 10 x 1 ms, and 8000 bytes 2 x 3 / 4 times at 12,000 bytes a second.
  assert cost.seconds_of_sums(
    4, latency=1e-3, bandwidth=12_000
  ) == pytest.approx(0.01 + 1)
