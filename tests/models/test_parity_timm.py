"""Our networks agree with timm's if the weights are equal.

The weights of a timm model are drawn at random, saved, and loaded with our
loader. Run it with `-s` to see the differences.
"""

import functools
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from safetensors import numpy as safetensors_numpy

from mtnet_jax.models import layers
from mtnet_jax.models import mtnet
from mtnet_jax.models import xception
from mtnet_jax.weights import load

# Sizes of the input. Odd ones are rounded when the grid is halved.
ODD, EVEN = (65, 103), (64, 84)

pytestmark = [pytest.mark.extra, pytest.mark.slow]


def save(module, path):
  """Writes a PyTorch module's state dict."""
  state = {name: value.numpy() for name, value in module.state_dict().items()}
  safetensors_numpy.save_file(state, path)
  return path


class Backbone(nn.Module):
  """The backbone of Coarse Seg-net alone."""

  bn_epsilon: float
  tail_dilation: int
  skip_relu: bool
  input_mean: tuple[float, ...]
  input_std: tuple[float, ...]
  bn_momentum: float = 0.9
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images, *, train):
    norm = layers.batch_norm(
      train=train,
      axis_name=None,
      epsilon=self.bn_epsilon,
      momentum=self.bn_momentum,
      dtype=self.dtype,
    )
    return xception.AlignedXception(
      norm=norm,
      tail_dilation=self.tail_dilation,
      skip_relu=self.skip_relu,
      dtype=self.dtype,
      name='backbone',
    )(layers.InputScale(self.input_mean, self.input_std)(images))


@pytest.fixture(scope='module')
def xceptions(tmp_path_factory):
  """Makes timm's legacy_xception, and Class-net as the original Xception."""
  timm = oracles.import_timm()
  oracle = timm.create_model('legacy_xception', num_classes=1)
  oracles.randomise_torch(oracle)
  path = save(oracle, tmp_path_factory.mktemp('timm') / 'x.safetensors')
  net = mtnet.ClassNet(use_coarse_mask=False, exit_pool=True, tail_dilation=1)
  weights = load.load_xception(path, net)
  assert {'fc.weight', 'fc.bias'} < set(weights.dropped)
  state = oracle.state_dict()
  weights.variables['params'] |= {
    'classifier': {'kernel': state['fc.weight'].numpy().T[None, None]},
    'bias': state['fc.bias'].numpy()[0],
  }
  tensors = load.match(path, net).tensors
  return oracle, net.clone(**weights.fields), weights.variables, tensors


def _their_xception(oracle, x):
  features = oracle.forward_features(x)
  return {
    'features': features,
    'logits': oracle.forward_head(features)[:, 0],
  }


def _our_xception(logits, taps):
  return {'features': taps['backbone'], 'logits': logits}


@pytest.mark.parametrize(
  'hw, train, differentiate',
  oracles.cases(ODD, EVEN, long=('evaluation',)),
)
def test_legacy_xception(xceptions, hw, train, differentiate):
  oracle, net, variables, tensors = xceptions
  oracles.assert_same(
    functools.partial(
      oracles.run_ours, net, variables, outputs_of=_our_xception
    ),
    functools.partial(oracles.run_torch, oracle, outputs_of=_their_xception),
    tensors,
    oracles.images(hw),
    train=train,
    differentiate=differentiate,
  )


@pytest.fixture(scope='module')
def aligned_xceptions(tmp_path_factory):
  """Makes timm's xception65 at output stride 16, and our backbone."""
  timm = oracles.import_timm()
  oracle = timm.create_model('xception65', output_stride=16, num_classes=1)
  oracles.randomise_torch(oracle)
  path = save(oracle, tmp_path_factory.mktemp('timm') / 'x65.safetensors')
  weights = load.load_deeplab(path)
  tensors = load.match(path).tensors
  return oracle, Backbone(**weights.fields), weights.variables, tensors


@pytest.mark.parametrize(
  'hw, train, differentiate',
  oracles.cases(ODD, EVEN, long=('evaluation', 'training')),
)
def test_xception65(aligned_xceptions, hw, train, differentiate):
  oracle, net, variables, tensors = aligned_xceptions
  low_level = {}
  # The second convolution of the second block, as DeepLabv3+ reads it.
  hook = oracle.blocks[1].stack.conv2.register_forward_hook(
    lambda _, __, output: low_level.update(low_level=output.clone())
  )

  def theirs(oracle, x):
    features = oracle.forward_features(x)
    return {'features': features, **low_level}

  oracles.assert_same(
    functools.partial(
      oracles.run_ours, net, variables, outputs_of=_our_aligned_xception
    ),
    functools.partial(oracles.run_torch, oracle, outputs_of=theirs),
    tensors,
    oracles.images(hw),
    train=train,
    differentiate=differentiate,
  )
  hook.remove()


def _our_aligned_xception(features, taps):
  return {'features': features, 'low_level': taps['low_level']}


def test_fields_matter(xceptions):
  """With the settings of Keras's weights, the same weights do not agree."""
  oracle, net, variables, _ = xceptions
  images = oracles.images(EVEN)
  theirs, _, _ = oracles.run_torch(
    oracle, images, outputs_of=_their_xception, train=False
  )
  for change in ({'pool_padding': 'same'}, {'bn_epsilon': 1e-3}):
    ours, _, _ = oracles.run_ours(
      net.clone(**change),
      variables,
      images,
      outputs_of=_our_xception,
      train=False,
    )
    assert not np.isclose(
      oracles.relative(ours['logits'], theirs['logits']), 0, atol=1e-3
    ), change
