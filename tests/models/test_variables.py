"""Our initial variables are distributed like those of the modules."""

import functools
import math

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import project_configs
import pytest
from scipy import stats

from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.models import variables


def _config(strategy='mtnet'):
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.strategy = strategy
  return config


def _drawn(shapes, seed=0):
  return traverse_util.flatten_dict(variables.draw(shapes, seed), sep='/')


@pytest.mark.parametrize('strategy', strategies.STRATEGIES)
def test_every_variable_of_every_network_is_drawn(strategy):
  for name, shapes in nets_lib.variable_shapes(_config(strategy)).items():
    drawn = variables.draw(shapes, 0)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
      lambda x: (x.shape, x.dtype), shapes
    ), name


def test_kernels_and_constants_have_their_distributions():
  def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)

  found = _drawn(
    {
      'params': {
        'conv': {'kernel': shape(3, 3, 16, 400), 'bias': shape(400)},
        'depthwise': {'kernel': shape(3, 3, 1, 6400)},
        'up': {'kernel': shape(2, 2, 64, 225)},
        'bn': {'scale': shape(4), 'bias': shape(4)},
      },
      'batch_stats': {'bn': {'mean': shape(4), 'var': shape(4)}},
    }
  )
  # The variance is 2 / fan-in. An output of the convolution sums over 144
  # products, one of the depthwise convolution over 9, and one of the upsampling
  # over the 64 channels of one tap.
  for name, variance in (
    ('conv', 2 / 144),
    ('depthwise', 2 / 9),
    ('up', 2 / 64),
  ):
    values = np.asarray(found[f'params/{name}/kernel']).ravel()
    assert len(values) == 57600
    # Five standard errors.
    assert np.var(values) == pytest.approx(
      variance, rel=5 * math.sqrt(2 / len(values))
    )
    scale = math.sqrt(variance / stats.truncnorm(-2, 2).var())
    reference = stats.truncnorm(-2, 2, scale=scale)
    assert stats.kstest(values, reference.cdf).pvalue > 1e-4
  for name, value in (
    ('params/conv/bias', 0),
    ('params/bn/scale', 1),
    ('params/bn/bias', 0),
    ('batch_stats/bn/mean', 0),
    ('batch_stats/bn/var', 1),
  ):
    assert set(np.unique(found[name])) == {value}


def test_a_kernel_follows_from_seed_and_path_alone():
  shape = jax.ShapeDtypeStruct((3, 3, 1, 8), jnp.float32)
  alone = _drawn({'a': {'kernel': shape}}, seed=3)
  beside = _drawn({'0': {'kernel': shape}, 'a': {'kernel': shape}}, seed=3)
  np.testing.assert_array_equal(alone['a/kernel'], beside['a/kernel'])


def test_no_two_kernels_are_equal():
  shape = jax.ShapeDtypeStruct((3, 3, 1, 8), jnp.float32)
  shapes = {'a': {'kernel': shape}, 'b': {'kernel': shape}}
  one, other = _drawn(shapes), _drawn(shapes, seed=1)
  values = np.concatenate([x.ravel() for d in (one, other) for x in d.values()])
  assert len(np.unique(values)) == len(values)


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ('mtnet', 'single', 'feedback'))
def test_the_modules_own_initialisers_agree(strategy):
  config = _config(strategy)
  nets = nets_lib.make_nets(config)
  for name, shapes in nets_lib.variable_shapes(config).items():
    kind = strategies.STRATEGIES[strategy][name].inputs
    inputs = [jnp.zeros(x.shape) for x in variables.input_shapes(kind, 64)]
    init = jax.jit(functools.partial(nets[name].init, train=False))
    theirs = traverse_util.flatten_dict(
      init(jax.random.key(1), *inputs), sep='/'
    )
    ours = _drawn(shapes)
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
      if path.endswith('kernel'):
        ratio = np.var(ours[path]) / np.var(value)
        freedom = value.size - 1
        below = stats.f.cdf(ratio, freedom, freedom)
        assert 1e-6 < below < 1 - 1e-6, path
      else:
        np.testing.assert_array_equal(ours[path], value, err_msg=path)
