"""The networks' values and gradients on this device, beside a CPU's.

Both compute in float32 from the same parameters, inputs and dropout keys. How
far apart roundings alone may take them depends on the network: the CPU
computes a second time, with parameters that are off by about one rounding, and
the two devices may differ by ten times as much as that changes, or by the
bound of docs/fidelity.md where that is larger. Products in TF32, whose rounding
is 8,000 times float32's, would still be noticed.
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

# As a share of the norm: of gradients in docs/fidelity.md, section 6, and of
# outputs there as a share of the largest value.
_BOUND = 1e-4
_TIMES_A_ROUNDING = 10
# About half of float32's distance from 1 to the next number.
_ROUNDING = 2.0**-24
# A leaf whose norm is below this share of the whole is a gradient that is 0 but
# for roundings, such as that of a bias before a batch norm.
_SMALLEST_LEAF = 1e-4
_BATCH_SIZE = 2
# Compiling for a CPU would take longer than all else: its programs run only
# twice, and their products are Eigen's at any level.
_UNOPTIMISED = {'xla_backend_optimization_level': 0}


class Values:
  """Compiles and compares the three networks.

  Programs are compiled in other threads, in the order in which the checks ask
  for them.

  Args:
    tiny: the networks of a rehearsal in place of the paper's.
  """

  def __init__(self, tiny):
    config = rehearsal.get_config() if tiny else configs.get_config()
    self._problem = problem_lib.make(_BATCH_SIZE, config.image_size)
    self._variables, self._found = {}, {}
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
    """Drops programs that nobody waits for."""
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
    """The program of a network, where its arguments are."""
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
      # The CPU computes with XLA alone, so that also a rehearsal on a CPU
      # compares two programs and not one with itself.
      with target.portable():
        return program.lower(*arguments).compile()

  def _run(self, name, dtype, where, variables=None):
    program = self._programs[name, dtype, where].result()
    return jax.device_get(program(*self._arguments(name, where, variables)))

  def check(self, name):
    """Compares this device with the CPU, both in float32.

    Args:
      name: of `NAMES`.

    Returns:
      The figures of a check: 'ok', and for each kind of value by how much they
      differ, as a share of the CPU's norm; 'rounding_KIND' is what the CPU
      finds from parameters off by a rounding.
    """
    card = self._run(name, 'float32', 'card')
    self._found[name] = card
    cpu = self._run(name, 'float32', 'cpu')
    moved = self._run(
      name, 'float32', 'cpu', _off_by_a_rounding(self._variables[name])
    )
    figures, ok = {'loss_value': float(cpu['loss'])}, True
    for kind in cpu:
      differs = relative(card[kind], cpu[kind])
      rounding = relative(moved[kind], cpu[kind])
      allowed = max(_BOUND, _TIMES_A_ROUNDING * rounding)
      figures |= {kind: differs, f'rounding_{kind}': rounding}
      # Written so that NaN fails.
      ok = ok and bool(differs <= allowed)
    worst = _worst_leaf(card['gradient'], cpu['gradient'], moved['gradient'])
    figures |= worst
    ok = ok and bool(worst['worst_leaf_to_allowed'] <= 1)
    return {'ok': ok, **figures}

  def check_bfloat16(self, name):
    """What bfloat16 changes on this device, beside `check`'s float32 there.

    Returns:
      The figures of a check, which fails where a value is not finite.
    """
    found = self._run(name, 'bfloat16', 'card')
    if name not in self._found:
      self._found[name] = self._run(name, 'float32', 'card')
    finite = all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    return {
      'ok': bool(finite),
      **{
        kind: relative(x, self._found[name][kind]) for kind, x in found.items()
      },
    }


def _values(name, net, variables, inputs, target):
  """What a network computes in evaluation and in a step of training."""
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
  found = {
    'evaluation': evaluated,
    'training': logits,
    'loss': loss,
    'batch_stats': batch_stats,
    'gradient': gradient,
  }
  return jax.tree.map(lambda x: x.astype(jnp.float32), found)


def _off_by_a_rounding(variables):
  rng = np.random.default_rng(0)

  def moved(x):
    change = 1 + _ROUNDING * rng.standard_normal(x.shape)
    return np.asarray(x * change, x.dtype)

  return jax.tree.map(moved, variables)


def _norm(tree):
  return float(
    np.sqrt(
      sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree))
    )
  )


def relative(found, expected):
  """Norm of the difference of two trees, as a share of the second one's."""
  difference = jax.tree.map(
    lambda x, y: np.asarray(x, np.float64) - y, found, expected
  )
  return _norm(difference) / max(_norm(expected), 1e-30)


def _worst_leaf(found, expected, moved):
  """The leaf that differs most, measured by what it may differ."""
  whole = _norm(expected)
  worst = {'worst_leaf': '', 'worst_leaf_to_allowed': 0.0}
  for (path, x), y, z in zip(
    jax.tree_util.tree_leaves_with_path(expected),
    jax.tree.leaves(found),
    jax.tree.leaves(moved),
    strict=True,
  ):
    if _norm(x) <= _SMALLEST_LEAF * whole:
      continue
    differs = relative(y, x)
    to_allowed = differs / max(_BOUND, _TIMES_A_ROUNDING * relative(z, x))
    if not to_allowed <= worst['worst_leaf_to_allowed']:
      worst = {
        'worst_leaf': jax.tree_util.keystr(path, simple=True, separator='/'),
        'worst_leaf_differs': differs,
        'worst_leaf_to_allowed': to_allowed,
      }
  return worst
