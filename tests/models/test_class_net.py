"""Class-net: its size, its activation map, and the channel of the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

from mtnet_jax.models import mtnet


def test_class_net_has_the_paper_s_size():
  variables, logits, taps = tiny_nets.shapes(mtnet.ClassNet())
  assert tiny_nets.count(variables['params']) == 20_809_289
  assert logits.shape == (2,)
  grids = {name: x.shape[1:] for name, x in taps.items()}
  # The "valid" stem makes 224 -> 111 -> 109, and the poolings make 55, 28, 14.
  # The last pooling of the original network is left out.
  assert grids['block1'] == (55, 55, 128)
  assert grids['block2'] == (28, 28, 256)
  assert grids['block3'] == (14, 14, 728)
  assert grids['block11'] == (14, 14, 728)
  assert grids['block12'] == (14, 14, 1024)
  assert grids['backbone'] == (14, 14, 2048)
  assert grids['cam'] == (14, 14)


def test_class_net_without_mask_or_with_pool():
  # A 3 x 3 kernel with 32 features has one input channel less.
  variables, _, _ = tiny_nets.shapes(mtnet.ClassNet(use_coarse_mask=False))
  assert tiny_nets.count(variables['params']) == 20_809_289 - 3 * 3 * 32
  _, _, taps = tiny_nets.shapes(mtnet.ClassNet(exit_pool=True))
  assert taps['backbone'].shape == (2, 7, 7, 2048)


@pytest.mark.parametrize('hw', ((64, 64), (65, 50)))
def test_class_logits_are_one_per_image(hw):
  _, logits, taps = tiny_nets.shapes(
    mtnet.ClassNet(**tiny_nets.TINY_CLASS), hw=hw, batch=3
  )
  assert logits.shape == (3,) and logits.dtype == jnp.float32
  assert taps['cam'].dtype == jnp.float32


def test_mean_of_the_activation_map_plus_bias_is_the_logit(class_net):
  net, variables = class_net
  bias = variables['params']['bias']
  assert bias.shape == () and bias != 0
  logits, taps = tiny_nets.evaluate(
    net, variables, *tiny_nets.inputs(net, 2, (64, 64))
  )
  assert taps['cam'].shape == (2, 4, 4)
  np.testing.assert_allclose(
    np.mean(taps['cam'], (1, 2)) + bias, logits, rtol=1e-5, atol=1e-6
  )
  # The map is the classifier's kernel over the last features (Zhou et al.).
  kernel = variables['params']['classifier']['kernel'][0, 0, :, 0]
  np.testing.assert_allclose(
    taps['cam'], taps['backbone'] @ kernel, rtol=1e-4, atol=1e-5
  )


def test_class_net_without_mask_ignores_it():
  net = mtnet.ClassNet(use_coarse_mask=False, **tiny_nets.TINY_CLASS)
  variables = tiny_nets.init(net, (64, 64))
  images, mask = tiny_nets.inputs(net, 2, (64, 64))
  logits, _ = tiny_nets.evaluate(net, variables, images, mask)
  moved, _ = tiny_nets.evaluate(net, variables, images, 1 - mask)
  np.testing.assert_array_equal(moved, logits)


def test_fourth_channel_starts_as_the_mean_of_the_others(class_net):
  net, variables = class_net
  params = variables['params']
  averaged = mtnet.average_fourth_channel(params)
  before = params['backbone']['conv1']['kernel']
  after = averaged['backbone']['conv1']['kernel']
  assert before.shape == after.shape == (3, 3, 4, 4)
  np.testing.assert_array_equal(after[:, :, :3], before[:, :, :3])
  np.testing.assert_allclose(
    after[:, :, 3],
    (before[:, :, 0] + before[:, :, 1] + before[:, :, 2]) / 3,
    rtol=1e-5,
    atol=1e-7,
  )
  assert float(jnp.abs(before - after).max()) > 0
  # All other leaves are the same objects.
  differing = [
    jax.tree_util.keystr(path)
    for (path, old), new in zip(
      jax.tree_util.tree_leaves_with_path(params),
      jax.tree.leaves(averaged),
      strict=True,
    )
    if old is not new
  ]
  assert differing == ["['backbone']['conv1']['kernel']"]


def test_the_mask_channel_is_never_scaled(class_net):
  net, variables = class_net
  images, mask = tiny_nets.inputs(net, 1, (64, 64))
  logits, _ = tiny_nets.evaluate(net, variables, images, mask)
  scaled, _ = tiny_nets.evaluate(
    net.clone(input_mean=(0.25,), input_std=(0.5,)),
    variables,
    images * 0.5 + 0.25,
    mask,
  )
  np.testing.assert_allclose(scaled, logits, rtol=1e-4, atol=1e-5)
