"""The PyTorch DeepLabv3+ fits the public weights and has our network's size.

`fixtures/deeplabv3plus_xception65_torch_keys.json` holds the names and shapes
of the public state dict (DeepLabv3+ on Xception-65, COCO then VOC, without its
`module.` prefix).
"""

import json

import main_job
import pytest

torch = pytest.importorskip('torch', reason='needs the extra `interop`')

from mtnet_jax.inference.torch import deeplab  # noqa: E402

pytestmark = pytest.mark.extra

_KEYS = (
  main_job.ROOT
  / 'tests'
  / 'fixtures'
  / 'deeplabv3plus_xception65_torch_keys.json'
)


@pytest.fixture(scope='module')
def public_shapes():
  return json.loads(_KEYS.read_text(encoding='utf-8'))


def _abstract(**kwargs):
  """Makes a network of shapes only, by default that of the public weights."""
  with torch.device('meta'):
    return deeplab.DeepLabV3Plus(**{'num_classes': 21, **kwargs})


@pytest.fixture(scope='module')
def network():
  """Makes a network with random weights that keep the scale of signals."""
  torch.manual_seed(0)
  net = deeplab.DeepLabV3Plus(**deeplab.PUBLIC)
  for module in net.modules():
    if isinstance(module, torch.nn.Conv2d):
      torch.nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, torch.nn.BatchNorm2d):
      torch.nn.init.uniform_(module.weight, 0.7, 1.4)
      torch.nn.init.uniform_(module.bias, -0.3, 0.3)
  return net.eval()


def test_names_and_shapes_are_the_public_weights(public_shapes):
  shapes = {
    name: list(value.shape) for name, value in _abstract().state_dict().items()
  }
  assert shapes == public_shapes
  assert len(shapes) == 716


def test_one_class_has_the_coarse_net_s_size():
  def count(**kwargs):
    return sum(p.numel() for p in _abstract(**kwargs).parameters())

  assert count(num_classes=1) == 54_708_417
  # Each further class adds 256 weights and a bias.
  assert count() == 54_708_417 + 20 * 257


def test_loads_a_state_dict_without_batch_counters(public_shapes):
  # Files of PyTorch 0.4 have no version either, like this plain dict.
  state = {
    name: torch.empty(shape, device='meta')
    for name, shape in public_shapes.items()
  }
  _abstract().load_state_dict(state, assign=True)
  del state['backbone.bn1.running_var']
  with pytest.raises(RuntimeError, match='backbone.bn1.running_var'):
    _abstract().load_state_dict(state, assign=True)


def test_every_batch_norm_has_the_epsilon_of_the_public_weights():
  epsilons = {
    module.eps
    for module in _abstract().modules()
    if isinstance(module, torch.nn.BatchNorm2d)
  }
  assert epsilons == {1e-5}


@pytest.mark.parametrize('hw', ((64, 64), (48, 80)))
def test_logits_have_the_images_size(network, hw):
  with torch.no_grad():
    logits = network(torch.randn(2, 3, *hw))
  assert logits.shape == (2, 1, *hw)
  assert torch.isfinite(logits).all() and logits.std() > 0


def test_identity_skips_carry_relu(network):
  # The convolutions add the same values to either skip.
  block = network.backbone.block4
  x = torch.randn(1, 728, 3, 3)
  with torch.no_grad():
    whole = block(x) - torch.relu(x)
    block.skip_relu = False
    plain = block(x) - x
    block.skip_relu = True
  torch.testing.assert_close(whole, plain, rtol=1e-4, atol=1e-4)
  assert whole.std() > 0


def test_low_level_feature_is_tapped_before_any_relu(network):
  seen = {}
  hook = network.backbone.block2.sepconv2.register_forward_hook(
    lambda module, args, out: seen.update(second=out.clone())
  )
  with torch.no_grad():
    _, low_level = network.backbone(torch.randn(1, 3, 32, 32))
  hook.remove()
  torch.testing.assert_close(low_level, seen['second'])
  assert low_level.shape == (1, 256, 8, 8) and low_level.min() < 0


def test_dropout_rates_are_those_of_the_public_code():
  rates = {
    name: module.p
    for name, module in _abstract().named_modules()
    if isinstance(module, torch.nn.Dropout)
  }
  assert rates == {'dropout1': 0.5, 'cat_conv.3': 0.5, 'cat_conv.7': 0.1}


def test_a_training_step_reaches_every_parameter(network):
  # In-place ReLUs must not overwrite values that the gradients need.
  network.train()
  try:
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
  finally:
    network.eval()
  missing = [name for name, p in network.named_parameters() if p.grad is None]
  assert not missing
  network.zero_grad(set_to_none=True)
