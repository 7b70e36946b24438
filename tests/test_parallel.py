"""Trees over the local devices."""

import jax
import numpy as np

from mtnet_jax import parallel

TREE = {'a': np.arange(6.0).reshape(2, 3), 'b': {'c': np.int32(7)}}


def test_replicated_trees_come_back_unchanged():
  back = parallel.unreplicate(parallel.replicate(TREE))
  jax.tree.map(np.testing.assert_array_equal, back, TREE)


def test_every_device_holds_a_copy():
  replicated = parallel.replicate(TREE)
  devices = jax.local_device_count()
  assert replicated['a'].shape == (devices, 2, 3)
  assert {shard.device for shard in replicated['a'].addressable_shards} == set(
    jax.local_devices()
  )


def test_replicated_inputs_do_not_compile_a_second_time():
  """Outputs of a mapped step come back as its inputs: one program serves."""
  traces = []

  def step(tree):
    traces.append(1)
    return jax.tree.map(lambda x: x + 1, tree)

  mapped = jax.pmap(step, axis_name=parallel.AXIS)
  with jax.log_compiles(False):
    tree = parallel.replicate(TREE)
    for _ in range(3):
      tree = mapped(tree)
  assert len(traces) == 1
  np.testing.assert_array_equal(
    parallel.unreplicate(tree)['b']['c'], np.int32(10)
  )


def test_split_keeps_the_order_of_the_global_batch():
  np.testing.assert_array_equal(
    parallel.split(np.arange(6), 3), [[0, 1], [2, 3], [4, 5]]
  )
