"""Our networks, as functions to time: one forward, or one training step."""

import functools

import jax
import jax.numpy as jnp
import optax

from mtnet_jax import losses
from mtnet_jax.models import mtnet
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.system import devices
from mtnet_jax.training import optim

NETS = {
  'coarse': mtnet.CoarseSegNet,
  'class': mtnet.ClassNet,
  'fine': mtnet.FineSegNet,
}


def loss_of(net_name, logits, target):
  """Mean loss of a stage, as training has it."""
  if net_name == 'class':
    return losses.classification_loss(logits, target).mean()
  return losses.hybrid_loss(jax.nn.sigmoid(logits), target).mean()


def make_step(net_name, net, tx):
  """A training step (state, inputs, target) -> state."""

  def step(state, inputs, target):
    def loss(params):
      (logits, _), updates = net.apply(
        {'params': params, 'batch_stats': state['batch_stats']},
        *inputs,
        train=True,
        rngs={'dropout': jax.random.key(0)},
        mutable=['batch_stats'],
      )
      return loss_of(net_name, logits, target), updates['batch_stats']

    grads, batch_stats = jax.grad(loss, has_aux=True)(state['params'])
    updates, opt_state = tx.update(grads, state['opt_state'])
    return {
      'params': optax.apply_updates(state['params'], updates),
      'batch_stats': batch_stats,
      'opt_state': opt_state,
    }

  return step


class Contestant:
  """One network at the paper's size, compiled.

  Args:
    net_name: of `problem.NETS`.
    problem: `problem.Problem`.
    mode: 'forward' (evaluation) or 'step' (forward, backward, Adam).
    dtype: compute type, 'float32' or 'bfloat16'.
    precision: of float32 products, as `jax.default_matmul_precision`.

  Attributes:
    compiled: the program, `jax.stages.Compiled`.
  """

  def __init__(
    self,
    net_name,
    problem,
    *,
    mode,
    dtype='float32',
    precision='highest',
  ):
    net = NETS[net_name](dtype=jnp.dtype(dtype))
    inputs = jax.device_put(problem.inputs(net_name))
    target = jax.device_put(problem.target(net_name))
    init = functools.partial(net.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)
    # Copied, for what NumPy holds cannot be donated.
    variables = jax.tree.map(jnp.array, variables_lib.draw(shapes, 0))
    with jax.default_matmul_precision(precision):
      if mode == 'step':
        tx = optax.adam(1e-4)
        opt_state = optim.init_state(tx, variables['params'])
        opt_state = jax.tree.map(jnp.array, opt_state)
        self._state = {**variables, 'opt_state': opt_state}
        step = jax.jit(
          make_step(net_name, net, tx),
          donate_argnums=0,
          compiler_options=devices.lean_options(),
        )
        self.compiled = step.lower(self._state, inputs, target).compile()
        self._arguments = inputs, target
      else:
        forward = jax.jit(
          lambda *args: net.apply(*args, train=False)[0],
          compiler_options=devices.forward_options(),
        )
        self.compiled = forward.lower(variables, *inputs).compile()
        self._state = None
        self._arguments = variables, *inputs

  def __call__(self):
    if self._state is None:
      return self.compiled(*self._arguments)
    self._state = self.compiled(self._state, *self._arguments)
    return self._state
