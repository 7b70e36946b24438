"""Class-net's backbone computes what Keras's Xception does, weights equal.

Through the loader: weights of a Keras model, drawn at random, go into a file
and come out as ours. Run it with `-s` to see the figures.
"""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from mtnet_jax.models import mtnet
from mtnet_jax.weights import load

keras = pytest.importorskip('keras', reason='needs the extra `interop`')

pytestmark = [pytest.mark.extra, pytest.mark.slow]

# Where a size is even, Keras's "same" pooling pads on one side only.
ODD, EVEN = (65, 103), (64, 84)
_LEAVES = {
  'gamma': 'scale',
  'beta': 'bias',
  'moving_mean': 'mean',
  'moving_variance': 'var',
}


def _make_oracle(dtype):
  # Of conftest.py.
  assert keras.backend.backend() == 'jax'
  if dtype == 'float64':
    # On JAX, Keras's batch norms compute in float32 whatever their type.
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE['float64'] = 'float64'
  keras.config.set_dtype_policy(dtype)
  with jax.enable_x64(dtype == 'float64'):
    model = keras.applications.Xception(
      weights=None, include_top=False, input_shape=(None, None, 3)
    )
  keras.config.set_dtype_policy('float32')
  return model


@pytest.fixture(scope='module')
def oracle():
  model = _make_oracle('float32')
  rng = np.random.default_rng(0)
  values = []
  for variable in model.weights:
    leaf = _LEAVES.get(variable.path.rpartition('/')[2], 'kernel')
    shape = tuple(variable.shape)
    # (3, 3, C, 1) where depthwise.
    inputs = 9 if shape[-1] == 1 else np.prod(shape[:-1])
    values.append(oracles.draw(rng, shape, leaf, fan_in=inputs))
  model.set_weights(values)
  return model


@pytest.fixture(scope='module')
def ours(oracle, tmp_path_factory):
  path = tmp_path_factory.mktemp('keras') / 'xception.weights.h5'
  oracle.save_weights(path)
  net = mtnet.ClassNet(use_coarse_mask=False, exit_pool=True, tail_dilation=1)
  weights = load.load_xception(path, net)
  params = weights.variables['params']
  params['classifier'] = {'kernel': np.zeros((1, 1, 2048, 1), np.float32)}
  params['bias'] = np.float32(0)
  tensors = load.match(path, net).tensors
  return net.clone(**weights.fields), weights.variables, tensors


def run_keras(model, images, *, train, float64=False, differentiate=False):
  """As `oracles.run_torch`; Keras, too, keeps the biased variance."""
  values = model.get_weights()
  # Of the saved model: skips of another are numbered on.
  paths = [variable.path for variable in model.non_trainable_variables]
  if float64:
    model = _make_oracle('float64')
  dtype = 'float64' if float64 else 'float32'
  with jax.enable_x64(float64):
    model.set_weights(values)
    state = [
      [variable.value for variable in group]
      for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    shape = jax.eval_shape(
      lambda x: model.stateless_call(*state, x)[0], jnp.asarray(images, dtype)
    )
    cotangent = oracles.cotangents({'features': shape})['features']

    @fast_compile.jit
    def run(state, images):
      def weighted_sum(images):
        features, after = model.stateless_call(*state, images, training=train)
        return jnp.sum(features * cotangent), (features, after)

      if not differentiate:
        return weighted_sum(images), None
      return jax.value_and_grad(weighted_sum, has_aux=True)(images)

    (_, (features, after)), grad = jax.device_get(
      run(state, jnp.asarray(images, dtype))
    )
  momentum = model.get_layer('block1_conv1_bn').momentum
  statistics = {}
  for path, before, new in zip(paths, state[1], after, strict=True):
    layer, leaf = path.split('/')[-2:]
    place = {'moving_mean': 2, 'moving_variance': 3}.get(leaf)
    if place:
      new, before = (np.asarray(x, np.float64) for x in (new, before))
      statistics[f'{layer}/{place}'] = (new - momentum * before) / (
        1 - momentum
      )
  return {'features': features}, grad, statistics


@pytest.mark.parametrize(
  'hw, train, differentiate',
  oracles.cases(ODD, EVEN, long=('evaluation', 'training')),
)
def test_xception(oracle, ours, hw, train, differentiate):
  net, variables, tensors = ours
  oracles.assert_same(
    functools.partial(
      oracles.run_ours, net, variables, outputs_of=_our_features
    ),
    functools.partial(run_keras, oracle),
    tensors,
    oracles.images(hw),
    train=train,
    differentiate=differentiate,
  )


def _our_features(_, taps):
  return {'features': taps['backbone']}
