"""Compares the networks' values and gradients on this device with a CPU's.

Both devices compute in float32 from the same parameters, inputs and dropout
keys. How much rounding alone may change the values depends on the network. The
CPU therefore computes a second time with parameters that are perturbed by about
one rounding. The two devices may differ by ten times the change that this
causes, or by the bound in docs/fidelity.md if that is larger. Products in TF32
would still be detected: their rounding error is 8,000 times that of float32.
"""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import jax_contestant
from benchmarks import problem as problem_lib
from benchmarks.gpu import rehearsal
from configs import mtnet as configs
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.ops import target
from mtnet_jax.system import devices

NAMES = problem_lib.NETS

# Relative bound, as a share of the norm, from docs/fidelity.md, section 6.
# There it holds for gradients, and for outputs as a share of the largest value.
_BOUND = 1e-4
_TIMES_A_ROUNDING = 10
# About half of float32's distance from 1 to the next number.
_ROUNDING = 2.0**-24
# A leaf whose norm is below this share of the whole gradient's is 0 except for
# rounding, such as the gradient of a bias before a batch norm.
_SMALLEST_LEAF = 1e-4
_BATCH_SIZE = 2
# Optimised compilation for the CPU would take longer than everything else, and
# its programs run only twice. Products are computed by Eigen at any level.
_UNOPTIMISED = {'xla_backend_optimization_level': 0}


class Values:
  """Compiles and compares the three networks.

  Other threads compile the programs, in the order in which the checks need
  them.

  Args:
    tiny: whether to use the networks of a rehearsal in place of the paper's.
  """

  def __init__(self, tiny):
    config = rehearsal.get_config() if tiny else configs.get_config()
    self._problem = problem_lib.make(_BATCH_SIZE, config.image_size)
    self._variables, self._card_values = {}, {}
    self._cpu, self._card = jax.devices('cpu')[0], jax.devices()[0]
    for name, net in nets_lib.make_nets(config).items():
      shapes = jax.eval_shape(
        functools.partial(net.init, train=False),
        jax.random.key(0),
        *self._problem.inputs(name),
      )
      self._variables[name] = variables_lib.draw(shapes, 0)
    self._pool = concurrent.futures.ThreadPoolExecutor(4)
    self._programs = {
      key: self._pool.submit(self._compile, config, *key)
      for key in (
        *((n, 'float32', where) for n in NAMES for where in ('cpu', 'card')),
        *((n, 'bfloat16', 'card') for n in NAMES),
      )
    }

  def close(self):
    """Cancels compilations that have not started."""
    self._pool.shutdown(wait=False, cancel_futures=True)

  def _device(self, where):
    return self._cpu if where == 'cpu' else self._card

  def _arguments(self, name, where, variables=None):
    return jax.device_put(
      (
        variables or self._variables[name],
        self._problem.inputs(name),
        self._problem.target(name),
      ),
      self._device(where),
    )

  def _compile(self, config, name, dtype, where):
    """Compiles the program of a network for one of the devices."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
      config.dtype = dtype
    program = jax.jit(
      functools.partial(_values, name, nets_lib.make_nets(config)[name]),
      compiler_options=_UNOPTIMISED
      if self._device(where).platform == 'cpu'
      else devices.lean_options(),
    )
    arguments = self._arguments(name, where)
    with jax.default_matmul_precision('highest'):
      if where != 'cpu':
        return program.lower(*arguments).compile()
      # The reference uses XLA alone, so that a rehearsal on a CPU compares two
      # different programs.
      with target.portable():
        return program.lower(*arguments).compile()

  def _run(self, name, dtype, where, variables=None):
    program = self._programs[name, dtype, where].result()
    return jax.device_get(program(*self._arguments(name, where, variables)))

  def check(self, name):
    """Compares this device with the CPU, both in float32.

    Args:
      name: one of `NAMES`.

    Returns:
      The figures of a check: 'ok', and for each kind of value the difference as
      a share of the CPU's norm. 'rounding_KIND' is the difference on the CPU
      that perturbed parameters cause.
    """
    card = self._run(name, 'float32', 'card')
    self._card_values[name] = card
    cpu = self._run(name, 'float32', 'cpu')
    perturbed = self._run(
      name, 'float32', 'cpu', _perturbed(self._variables[name])
    )
    figures, ok = {'loss_value': float(cpu['loss'])}, True
    for kind in cpu:
      difference = relative(card[kind], cpu[kind])
      rounding = relative(perturbed[kind], cpu[kind])
      allowed = max(_BOUND, _TIMES_A_ROUNDING * rounding)
      figures |= {kind: difference, f'rounding_{kind}': rounding}
      # This comparison is False for NaN.
      ok = ok and bool(difference <= allowed)
    worst = _worst_leaf(
      card['gradient'], cpu['gradient'], perturbed['gradient']
    )
    figures |= worst
    ok = ok and bool(worst['worst_leaf_to_allowed'] <= 1)
    return {'ok': ok, **figures}

  def check_bfloat16(self, name):
    """Compares bfloat16 with float32 on this device.

    Args:
      name: one of `NAMES`.

    Returns:
      The figures of a check, which fails if any value is not finite.
    """
    values = self._run(name, 'bfloat16', 'card')
    if name not in self._card_values:
      self._card_values[name] = self._run(name, 'float32', 'card')
    finite = all(np.isfinite(x).all() for x in jax.tree.leaves(values))
    return {
      'ok': bool(finite),
      **{
        kind: relative(x, self._card_values[name][kind])
        for kind, x in values.items()
      },
    }


def _values(name, net, variables, inputs, target):
  """Computes a network's values in evaluation and in a training step."""
  evaluated, _ = net.apply(variables, *inputs, train=False)

  def loss_of(params):
    (logits, _), updates = net.apply(
      {**variables, 'params': params},
      *inputs,
      train=True,
      rngs={'dropout': jax.random.key(0)},
      mutable=['batch_stats'],
    )
    loss = jax_contestant.loss_of(name, logits, target)
    return loss, (logits, updates['batch_stats'])

  (loss, (logits, batch_stats)), gradient = jax.value_and_grad(
    loss_of, has_aux=True
  )(variables['params'])
  values = {
    'evaluation': evaluated,
    'training': logits,
    'loss': loss,
    'batch_stats': batch_stats,
    'gradient': gradient,
  }
  return jax.tree.map(lambda x: x.astype(jnp.float32), values)


def _perturbed(variables):
  """Returns variables that are changed by about one rounding."""
  rng = np.random.default_rng(0)

  def perturb(x):
    change = 1 + _ROUNDING * rng.standard_normal(x.shape)
    return np.asarray(x * change, x.dtype)

  return jax.tree.map(perturb, variables)


def _norm(tree):
  return float(
    np.sqrt(
      sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree))
    )
  )


def relative(actual, expected):
  """Returns the norm of the difference, as a share of that of `expected`."""
  difference = jax.tree.map(
    lambda x, y: np.asarray(x, np.float64) - y, actual, expected
  )
  return _norm(difference) / max(_norm(expected), 1e-30)


def _worst_leaf(actual, expected, perturbed):
  """Returns the leaf with the largest ratio of actual to allowed difference."""
  whole = _norm(expected)
  worst = {'worst_leaf': '', 'worst_leaf_to_allowed': 0.0}
  for (path, x), y, z in zip(
    jax.tree_util.tree_leaves_with_path(expected),
    jax.tree.leaves(actual),
    jax.tree.leaves(perturbed),
    strict=True,
  ):
    if _norm(x) <= _SMALLEST_LEAF * whole:
      continue
    difference = relative(y, x)
    to_allowed = difference / max(_BOUND, _TIMES_A_ROUNDING * relative(z, x))
    if not to_allowed <= worst['worst_leaf_to_allowed']:
      worst = {
        'worst_leaf': jax.tree_util.keystr(path, simple=True, separator='/'),
        'worst_leaf_differs': difference,
        'worst_leaf_to_allowed': to_allowed,
      }
  return worst
