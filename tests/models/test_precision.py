"""With bfloat16, sums, state and predictions stay in float32."""

import functools
import importlib.util

import jax
from jax import extend
import jax.numpy as jnp
import main_job
import numpy as np
import pytest
import traced_step

from mtnet_jax.models import layers
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import predictor
from mtnet_jax.training import stages
from mtnet_jax.training import start

_FLOAT32 = jnp.dtype('float32')


def _config():
  spec = importlib.util.spec_from_file_location(
    'mtnet_config', main_job.ROOT / 'configs' / 'mtnet.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config('test')
  config.dtype = 'bfloat16'
  return config


_STAGES = {stage.name: stage for stage in stages.make_stages(_config())}
# Without 'coarse', because Fine Seg-net contains all layers of Coarse Seg-net.
_TRAINED = ('class', 'fine')


@functools.cache
def _variables(name):
  """Returns the shapes of a stage's variables."""
  return start.shapes(_STAGES[name], size=_config().image_size)


@functools.cache
def _traced_step(name):
  """Traces one training step in bfloat16; see `traced_step.trace`."""
  return traced_step.trace(_config(), _STAGES[name])


def _equations(jaxpr):
  """Yields every equation of a jaxpr and of the jaxprs inside it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in extend.core.jaxprs_in_params(equation.params):
      yield from _equations(inner)


@pytest.mark.parametrize('stage', _TRAINED)
def test_state_and_loss_stay_float32(stage):
  _, old, new, losses = _traced_step(stage)
  for state in (old, new):
    floats = [
      leaf.dtype
      for leaf in jax.tree.leaves(state)
      if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    assert set(floats) == {_FLOAT32}
  # Adam keeps two moments of every parameter.
  params = len(jax.tree.leaves(old.params))
  assert len(floats) >= 3 * params + len(jax.tree.leaves(old.batch_stats))
  assert losses['loss'].dtype == _FLOAT32


def test_predictions_are_float32():
  config = _config()
  outputs = jax.eval_shape(
    functools.partial(
      predictor.predict_step,
      nets=nets_lib.make_nets(config),
      size=config.image_size,
      window=tuple(config.window),
      coarse_mask=config.coarse_mask,
    ),
    {name: _variables(name) for name in nets_lib.ORDER},
    jax.ShapeDtypeStruct((2, 64, 64), 'int16'),
  )
  assert set(outputs) == {'coarse', 'class', 'fine', 'cam'}
  assert {x.dtype for x in outputs.values()} == {_FLOAT32}


@pytest.mark.parametrize('stage', _TRAINED)
def test_no_sum_is_kept_in_bfloat16(stage):
  # A sum in bfloat16 can no longer grow by 1 once it is 256. Matrix products
  # and convolutions always sum in float32 (`ops/test_conv_parity.py`).
  jaxpr, *_ = _traced_step(stage)
  equations = list(_equations(jaxpr.jaxpr))
  kinds = {equation.primitive.name for equation in equations}
  assert {'reduce_sum', 'dot_general'} <= kinds
  short = [
    equation
    for equation in equations
    if any(
      getattr(variable.aval, 'dtype', None) == jnp.bfloat16
      for variable in equation.invars
    )
  ]
  assert len(short) > 100, 'the computation itself is in bfloat16'
  assert not [
    equation
    for equation in short
    if equation.primitive.name in ('reduce', 'reduce_sum')
    # A sum over axes of size 1 adds nothing.
    and equation.invars[0].aval.size > equation.outvars[0].aval.size
  ]


def test_gradient_of_a_bias_counts_every_pixel():
  # The gradient is 1 at each of 4 * 32 * 32 = 4096 pixels.
  conv = layers.Conv(1, use_bias=True, dtype=jnp.bfloat16)
  x = jnp.ones((4, 32, 32, 2))
  params = {'kernel': jnp.ones((1, 1, 2, 1)), 'bias': jnp.zeros(1)}
  grads = jax.jit(
    jax.grad(
      lambda params: conv.apply({'params': params}, x).astype(jnp.float32).sum()
    )
  )(params)
  np.testing.assert_array_equal(grads['bias'], [4096])
  np.testing.assert_array_equal(np.ravel(grads['kernel']), [4096, 4096])


def _batch_norm():
  return layers.batch_norm(
    train=True,
    axis_name=None,
    epsilon=1e-5,
    # With a momentum of 0, the running statistics are those of the batch.
    momentum=0.0,
    dtype=jnp.bfloat16,
  )('bn')


def test_batch_statistics_in_bfloat16_are_those_of_float64():
  # With a mean of 10 and a standard deviation of .3, sums in bfloat16 would
  # lose the variance of .09, because they are only accurate to 2^-8 * 10^2 =
  # .4.
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(10, 0.3, (8, 16, 16, 3)), jnp.bfloat16)
  norm = _batch_norm()
  variables = norm.init(jax.random.key(0), x)
  out, updates = norm.apply(variables, x, mutable=['batch_stats'])
  assert out.dtype == jnp.bfloat16
  exact = np.asarray(x, np.float64)
  mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
  stats = updates['batch_stats']
  assert stats['mean'].dtype == stats['var'].dtype == _FLOAT32
  np.testing.assert_allclose(stats['mean'], mean, rtol=1e-5)
  # E[x^2] - E[x]^2 = .09 is a difference of numbers around 100, so its relative
  # error is 1000 times the 6e-8 of float32, and more through the sum of 2048
  # terms.
  np.testing.assert_allclose(stats['var'], variance, rtol=2e-3)
  # The output is computed in float32 and rounded once.
  expected = (exact - mean) / np.sqrt(variance + 1e-5)
  np.testing.assert_allclose(
    np.asarray(out, np.float64), expected, rtol=2**-8 + 2e-3, atol=2e-3
  )


def test_gradients_of_batch_norm_sum_in_float32():
  x = jnp.zeros((4, 32, 32, 1), jnp.bfloat16)
  norm = _batch_norm()
  variables = norm.init(jax.random.key(0), x)

  def total(params):
    out, _ = norm.apply(
      {**variables, 'params': params}, x, mutable=['batch_stats']
    )
    return out.astype(jnp.float32).sum()

  grads = jax.jit(jax.grad(total))(variables['params'])
  np.testing.assert_array_equal(grads['bias'], [4096])
  assert grads['scale'].dtype == _FLOAT32
