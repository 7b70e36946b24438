"""Tests that the straightforward port computes the same as our networks."""

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from benchmarks import straightforward
from mtnet_jax.models import mtnet


@pytest.mark.slow
def test_same_gradients_with_other_operations():
  net = mtnet.ClassNet(
    stem_widths=(4, 32),
    entry_widths=(32, 8),
    middle_blocks=1,
    exit_width=8,
    tail_widths=(8,),
  )
  images = oracles.images((33, 40))
  mask = (images[..., :1] > 0.8).astype(np.float32)
  variables = net.init(jax.random.key(0), images, mask, train=False)

  def loss(params):
    (logits, _), _ = net.apply(
      {**variables, 'params': params},
      images,
      mask,
      train=True,
      mutable=['batch_stats'],
    )
    return jnp.sum(logits * jnp.arange(len(images)))

  def gradients():
    # A new function each time, because JAX caches traces.
    function = jax.jit(
      jax.grad(lambda params: loss(params)),
      compiler_options=fast_compile.OPTIONS,
    )
    lowered = function.lower(variables['params'])
    return lowered.as_text(), lowered.compile()(variables['params'])

  with jax.default_matmul_precision('highest'):
    our_text, ours = gradients()
    with straightforward.port():
      text, theirs = gradients()
  assert 'select_and_scatter' not in our_text
  assert 'select_and_scatter' in text
  for one, other in zip(
    jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True
  ):
    scale = np.abs(other).max()
    np.testing.assert_allclose(one, other, atol=1e-3 * scale)
