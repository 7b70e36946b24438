"""Tests that the PyTorch contestants compute the same as our networks."""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from mtnet_jax import losses
from mtnet_jax.models import mtnet
from mtnet_jax.weights import load

torch = pytest.importorskip('torch', reason='needs the extra `interop`')

from benchmarks import problem as problem_lib  # noqa: E402
from benchmarks import torch_contestant  # noqa: E402

pytestmark = pytest.mark.extra


@pytest.fixture(scope='module', name='class_nets')
def _class_nets(tmp_path_factory):
  """Class-net in PyTorch and ours, with the same random weights."""
  oracle = torch_contestant.make_net('class')
  oracles.randomise_torch(oracle)
  with torch.no_grad():
    # Our loader initialises the mask's channel with this mean.
    kernel = oracle.conv1.weight
    kernel[:, 3:] = kernel[:, :3].mean(1, keepdim=True)
  state = oracle.state_dict()
  path = tmp_path_factory.mktemp('peer') / 'class.pth'
  torch.save({**state, 'conv1.weight': state['conv1.weight'][:, :3]}, path)
  net = mtnet.ClassNet()
  weights = load.load_xception(path, net)
  weights.variables['params'] |= {
    'classifier': {'kernel': state['fc.weight'].numpy().T[None, None]},
    'bias': state['fc.bias'].numpy()[0],
  }
  return oracle, net, weights.variables


@pytest.mark.slow
@pytest.mark.parametrize('train', (False, True))
def test_class_net(class_nets, train):
  oracle, net, variables = class_nets
  images = oracles.images((64, 80))
  mask = (images[..., :1] > 0.8).astype(np.float32)
  joined = np.concatenate([images, mask], -1)
  theirs, _, _ = oracles.run_torch(
    oracle,
    joined,
    lambda module, x: {'logits': module(x[:, :3], x[:, 3:])[0]},
    train=train,
    float64=True,
    differentiate=False,
  )
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
    apply = jax.jit(
      functools.partial(
        net.clone(dtype=jnp.float64).apply, train=train, mutable=['batch_stats']
      ),
      compiler_options=fast_compile.OPTIONS,
    )
    (ours, _), _ = apply(wide, images.astype(float), mask.astype(float))
    assert oracles.relative(np.asarray(ours), theirs['logits']) < 1e-6


def test_hybrid_loss():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 9, 11, 1)).astype(np.float32)
  # The second mask has fewer nodule pixels than K, the last one none.
  mask = np.zeros_like(logits)
  mask[0, 2:8, 2:9], mask[1, 4, 4] = 1, 1

  def ours(logits):
    return losses.hybrid_loss(jax.nn.sigmoid(logits), mask).mean()

  value, grad = jax.value_and_grad(ours)(logits)
  theirs = torch_contestant.tensor(logits).requires_grad_()
  loss = torch_contestant.hybrid_loss(theirs, torch_contestant.tensor(mask))
  loss.backward()
  np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
  np.testing.assert_allclose(
    np.moveaxis(grad, -1, 1), theirs.grad.numpy(), atol=1e-7
  )


@pytest.mark.parametrize('net_name', ('coarse', 'class', 'fine'))
def test_equal_numbers_of_parameters(net_name):
  with torch.device('meta'):
    peer = torch_contestant.make_net(net_name)
  net = {
    'coarse': mtnet.CoarseSegNet,
    'class': mtnet.ClassNet,
    'fine': mtnet.FineSegNet,
  }[net_name]()
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  mask = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
  inputs = (images,) if net_name == 'coarse' else (images, mask)
  ours = jax.eval_shape(
    functools.partial(net.init, train=False), jax.random.key(0), *inputs
  )
  assert sum(p.numel() for p in peer.parameters()) == sum(
    leaf.size for leaf in jax.tree.leaves(ours['params'])
  )


class _Small(torch.nn.Module):
  """A network that is small enough to compile in a test."""

  def __init__(self):
    super().__init__()
    self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
    self.bn = torch.nn.BatchNorm2d(4)
    self.last = torch.nn.Conv2d(4, 1, 1)

  def forward(self, images):
    return self.last(self.bn(self.conv(images)).relu())


@pytest.mark.slow
@pytest.mark.parametrize('mode', ('forward', 'step'))
def test_the_compiled_contestant_computes_the_same(monkeypatch, mode):
  monkeypatch.setattr(torch_contestant, 'make_net', lambda name: _Small())
  problem = problem_lib.make(2, 32)
  results = []
  for compiled in (False, True):
    contestant = torch_contestant.Contestant(
      'coarse', problem, mode=mode, dtype='bfloat16', compiled=compiled
    )
    # The compiled one already made three warm-up steps.
    for _ in range(1 if compiled or mode == 'forward' else 4):
      result = contestant()
    contestant.wait()
    assert contestant.figures()['uncompiled'] is None
    results.append(result.float().numpy())
  np.testing.assert_allclose(*results, atol=0.02)
