"""Our networks as contestants: a forward pass or a training step."""

import functools
import time

import jax
import jax.numpy as jnp
import optax

from benchmarks import hlo
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
  """Computes the mean loss of a batch, as in training."""
  if net_name == 'class':
    return losses.classification_loss(logits, target).mean()
  return losses.hybrid_loss(jax.nn.sigmoid(logits), target).mean()


def make_step(net_name, net, tx):
  """Returns a training step, (state, inputs, target) -> state."""

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


def bytes_held(compiled):
  """Returns the bytes that a program needs, with arguments and results."""
  held = compiled.memory_analysis()
  return (
    held.argument_size_in_bytes
    + held.output_size_in_bytes
    - held.alias_size_in_bytes
    + held.temp_size_in_bytes
  )


class Contestant:
  """One network at the paper's size, compiled.

  Args:
    net_name: one of `problem.NETS`.
    problem: the `problem.Problem`.
    mode: 'forward' (evaluation) or 'step' (forward, backward, Adam).
    dtype: compute type, 'float32' or 'bfloat16'.
    precision: precision of float32 products, for
      `jax.default_matmul_precision`.
    fields: fields of the network's module that differ from the paper's.

  Attributes:
    compiled: the program, a `jax.stages.Compiled`.
    lower_s: seconds of tracing and lowering.
    compile_s: seconds of compilation.
  """

  def __init__(
    self,
    net_name,
    problem,
    *,
    mode,
    dtype='float32',
    precision='highest',
    fields=None,
  ):
    net = NETS[net_name](dtype=jnp.dtype(dtype), **(fields or {}))
    inputs = jax.device_put(problem.inputs(net_name))
    target = jax.device_put(problem.target(net_name))
    init = functools.partial(net.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)
    # Copied, because memory of NumPy arrays cannot be donated.
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
        self._compile(step, self._state, inputs, target)
        self._arguments = inputs, target
      else:
        forward = jax.jit(
          lambda *args: net.apply(*args, train=False)[0],
          compiler_options=devices.forward_options(),
        )
        self._compile(forward, variables, *inputs)
        self._state = None
        self._arguments = variables, *inputs

  def _compile(self, function, *arguments):
    start = time.perf_counter()
    lowered = function.lower(*arguments)
    self.lower_s = time.perf_counter() - start
    self.compiled = lowered.compile()
    self.compile_s = time.perf_counter() - start - self.lower_s

  def figures(self):
    """Returns what the program costs, besides its time.

    Returns:
      A dict; unknown values are None.
        lower_s, compile_s: as in the attributes.
        bytes_held: bytes of the program with its arguments.
        peak_bytes: peak of the device's allocator, compilation included.
        bytes, flops: those of a call, counted by `hlo.readable_kernels`.
        uncounted: how many counts are left out, or why nothing is counted.
        loops_counted_once: number of loops whose length is not known.
    """
    figures = {'lower_s': self.lower_s, 'compile_s': self.compile_s}
    figures['bytes_held'] = bytes_held(self.compiled)
    statistics = jax.local_devices()[0].memory_stats() or {}
    figures['peak_bytes'] = statistics.get('peak_bytes_in_use')
    try:
      kernels, loops, left_out = hlo.readable_kernels(self.compiled.as_text())
    except Exception as error:
      # The format of the text depends on the version of XLA. The other figures
      # do not need it.
      return {**figures, 'bytes': None, 'flops': None, 'uncounted': str(error)}
    return {
      **figures,
      'bytes': sum(kernel.times * kernel.bytes for kernel in kernels),
      'flops': sum(kernel.times * kernel.flops for kernel in kernels),
      'uncounted': left_out,
      'loops_counted_once': loops,
    }

  def __call__(self):
    """Runs the program once, and returns its result."""
    if self._state is None:
      return self.compiled(*self._arguments)
    self._state = self.compiled(self._state, *self._arguments)
    return self._state
