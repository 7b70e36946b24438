"""Tiny networks, their inputs and random variables."""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.models import mtnet

TINY_SEG = {
  'stem_widths': (4, 4),
  'entry_widths': (4, 6, 6),
  'middle_blocks': 1,
  'exit_width': 8,
  'tail_widths': (8, 8, 10),
  'aspp_features': 4,
  'low_level_features': 3,
  'decoder_features': 4,
}
TINY_CLASS = {
  'stem_widths': (4, 4),
  'entry_widths': (4, 6, 6),
  'middle_blocks': 1,
  'exit_width': 8,
  'tail_widths': (8, 10),
}


def inputs(net, batch, hw, *, seed=0):
  rng = np.random.default_rng(seed)
  images = jnp.asarray(rng.uniform(-1, 1, (batch, *hw, 3)), jnp.float32)
  if isinstance(net, mtnet.CoarseSegNet):
    return (images,)
  mask = rng.random((batch, *hw, 1)) < 0.3
  return images, jnp.asarray(mask, jnp.float32)


def init(net, hw):
  """Draws random variables; `net.init` is only traced, for their shapes."""
  variables = jax.eval_shape(
    functools.partial(net.init, train=False),
    jax.random.key(0),
    *inputs(net, 1, hw),
  )
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name == 'kernel':
      values = rng.normal(size=leaf.shape) * np.sqrt(
        2 / np.prod(leaf.shape[:-1])
      )
    elif name in ('scale', 'var'):
      values = rng.uniform(0.7, 1.4, leaf.shape)
    else:  # bias, mean
      values = rng.uniform(-0.3, 0.3, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, dict(variables))


def shapes(net, hw=(224, 224), batch=2, **kwargs):
  """Returns shapes of variables, logits and taps, without computing them."""
  inputs_of_net = [
    jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(net, batch, hw)
  ]
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  (logits, taps), variables = jax.eval_shape(
    functools.partial(net.init_with_output, train=False, **kwargs),
    rngs,
    *inputs_of_net,
  )
  return variables, logits, taps


def count(params):
  return sum(x.size for x in jax.tree.leaves(params))


@functools.partial(fast_compile.jit, static_argnums=0)
def evaluate(net, variables, *inputs):
  return net.apply(variables, *inputs, train=False)
