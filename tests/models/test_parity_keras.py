"""Class-net's backbone agrees with Keras's Xception if the weights are equal.

The weights of a Keras model are drawn at random, saved, and loaded with our
loader. Run it with `-s` to see the differences.
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

# At even sizes, Keras's "same" pooling pads on one side only.
ODD, EVEN = (65, 103), (64, 84)
_LEAVES = {
  'gamma': 'scale',
  'beta': 'bias',
  'moving_mean': 'mean',
  'moving_variance': 'var',
}


def _make_oracle(dtype):
  # conftest.py has selected the backend.
  assert keras.backend.backend() == 'jax'
  if dtype == 'float64':
    # On JAX, Keras's batch norms compute in float32 regardless of their type,
    # unless this entry says otherwise.
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
    # Depthwise kernels are (3, 3, C, 1).
    fan_in = 9 if shape[-1] == 1 else np.prod(shape[:-1])
    values.append(oracles.draw(rng, shape, leaf, fan_in=fan_in))
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
  """Does for Keras what `oracles.run_torch` does for PyTorch.

  Keras's running variance is the biased one, like ours.
  """
  values = model.get_weights()
  # Taken from the saved model, since Keras numbers the skips of a second model
  # differently.
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
    index = {'moving_mean': 2, 'moving_variance': 3}.get(leaf)
    if index:
      new, before = (np.asarray(x, np.float64) for x in (new, before))
      statistics[f'{layer}/{index}'] = (new - momentum * before) / (
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
