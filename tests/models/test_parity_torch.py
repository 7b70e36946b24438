"""Coarse Seg-net agrees with DeepLabv3+ in PyTorch if the weights are equal.

The PyTorch network has the names and shapes of the public weights, and computes
what the network computes that they were trained in. Its weights are drawn at
random, saved, and loaded with our loader. Run it with `-s` to see the
differences.
"""

import functools

import numpy as np
import oracles
import pytest

from mtnet_jax.models import mtnet
from mtnet_jax.weights import load

pytest.importorskip('torch', reason='needs the extra `interop`')

pytestmark = [pytest.mark.extra, pytest.mark.slow]

ODD, EVEN = (65, 97), (64, 80)


@pytest.fixture(scope='module')
def nets(tmp_path_factory):
  import torch

  from mtnet_jax.inference.torch import deeplab

  oracle = deeplab.DeepLabV3Plus(**deeplab.PUBLIC)
  oracles.randomise_torch(oracle)
  for module in oracle.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
  path = tmp_path_factory.mktemp('torch') / 'deeplab.pth'
  # The public file was saved from DataParallel, too.
  torch.save(torch.nn.DataParallel(oracle).state_dict(), path)
  weights = load.load_deeplab(path)
  assert set(weights.dropped) == {
    'module.cls_conv.weight',
    'module.cls_conv.bias',
  }
  state = oracle.state_dict()
  weights.variables['params']['classifier'] = {
    'kernel': state['cls_conv.weight'].numpy().transpose(2, 3, 1, 0),
    'bias': state['cls_conv.bias'].numpy(),
  }
  tensors = {
    ours: theirs.removeprefix('module.')
    for ours, theirs in load.match(path).tensors.items()
  }
  net = mtnet.CoarseSegNet(dropout_rates=(0.0, 0.0, 0.0), **weights.fields)
  # The PyTorch network does not scale its inputs.
  net = net.clone(input_mean=(0.0,), input_std=(1.0,))
  return oracle, net, weights.variables, tensors


@pytest.mark.parametrize(
  'hw, train, differentiate',
  oracles.cases(ODD, EVEN, long=('evaluation', 'training')),
)
def test_deeplab(nets, hw, train, differentiate):
  oracle, net, variables, tensors = nets
  oracles.assert_same(
    functools.partial(
      oracles.run_ours, net, variables, outputs_of=_our_outputs
    ),
    functools.partial(oracles.run_torch, oracle, outputs_of=_their_outputs),
    tensors,
    oracles.images(hw),
    train=train,
    differentiate=differentiate,
  )


def _our_outputs(logits, taps):
  return {'logits': logits, 'features': taps['backbone']}


def _their_outputs(oracle, x):
  taps = {}
  hook = oracle.backbone.register_forward_hook(
    lambda _, __, output: taps.update(features=output[0])
  )
  logits = oracle(x)
  hook.remove()
  return {'logits': logits, **taps}


@pytest.mark.parametrize('change', ({'skip_relu': False}, {'tail_dilation': 2}))
def test_fields_matter(nets, change):
  oracle, net, variables, _ = nets
  images = oracles.images(EVEN)
  theirs, _, _ = oracles.run_torch(
    oracle, images, outputs_of=_their_outputs, train=False
  )
  ours, _, _ = oracles.run_ours(
    net.clone(**change),
    variables,
    images,
    outputs_of=_our_outputs,
    train=False,
  )
  assert oracles.relative(ours['features'], theirs['features']) > 1e-2
  assert np.isfinite(ours['features']).all()
