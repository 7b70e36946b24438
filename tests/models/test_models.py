"""Sizes of the paper's networks, from shapes alone, and behaviour of tiny ones.

Nothing of the paper's size is computed.
"""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_nets

from mtnet_jax.models import layers
from mtnet_jax.models import mtnet
from mtnet_jax.models import xception
from mtnet_jax.ops import target

# Parameters, grids and types.


def test_coarse_seg_net_has_the_paper_s_size():
  variables, logits, taps = tiny_nets.shapes(mtnet.CoarseSegNet())
  assert tiny_nets.count(variables['params']) == 54_708_417
  assert set(variables) == {'params', 'batch_stats'}
  assert logits.shape == (2, 224, 224, 1)
  grids = {name: x.shape[1:] for name, x in taps.items()}
  # The entry flow halves the grid of 112 three times. The 16 middle blocks and
  # the exit block keep it, so the output stride is 16.
  assert grids['block1'] == (56, 56, 128)
  assert grids['block2'] == (28, 28, 256)
  assert grids['block3'] == (14, 14, 728)
  for i in range(4, 20):
    assert grids[f'block{i}'] == (14, 14, 728)
  assert grids['block20'] == (14, 14, 1024)
  assert 'block21' not in grids
  assert grids['backbone'] == (14, 14, 2048)
  assert grids['encoder'] == (14, 14, 256)
  assert grids['low_level'] == (56, 56, 256)
  assert grids['decoder'] == (56, 56, 256)


def test_fine_seg_net_adds_the_fine_layer_only():
  coarse, _, _ = tiny_nets.shapes(mtnet.CoarseSegNet())
  fine, logits, taps = tiny_nets.shapes(mtnet.FineSegNet())
  # A kernel of 257 x 256, 256 biases, and the scales and biases of the batch
  # norm: 65792 + 256 + 512 = 66560.
  assert tiny_nets.count(fine['params']) == 54_774_977 == 54_708_417 + 66_560
  assert logits.shape == (2, 224, 224, 1)
  assert taps['fine_layer'].shape == (2, 14, 14, 256)
  for collection in ('params', 'batch_stats'):
    fine_tree = dict(fine[collection])
    fine_tree.pop('fine_layer')
    assert jax.tree.map(lambda x: x.shape, fine_tree) == jax.tree.map(
      lambda x: x.shape, coarse[collection]
    )


def test_backbones_have_no_bias():
  for net in (mtnet.CoarseSegNet(), mtnet.ClassNet()):
    variables, _, _ = tiny_nets.shapes(net, hw=(64, 64))
    leaves = jax.tree_util.tree_leaves_with_path(
      variables['params']['backbone']
    )
    names = {tuple(key.key for key in path)[-2:] for path, _ in leaves}
    biased = {layer for layer, leaf in names if leaf == 'bias'}
    assert biased and all('bn' in layer for layer in biased)


@pytest.mark.parametrize('hw', ((32, 32), (33, 47), (16, 50)))
def test_segmentation_logits_have_the_images_size(hw):
  for net in (
    mtnet.CoarseSegNet(**tiny_nets.TINY_SEG),
    mtnet.FineSegNet(**tiny_nets.TINY_SEG),
  ):
    _, logits, taps = tiny_nets.shapes(net, hw=hw, batch=3)
    assert logits.shape == (3, *hw, 1) and logits.dtype == jnp.float32
    assert taps['low_level'].shape[1:3] == (-(-hw[0] // 4), -(-hw[1] // 4))
    assert taps['backbone'].shape[1:3] == (-(-hw[0] // 16), -(-hw[1] // 16))


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32():
  for net in (
    mtnet.CoarseSegNet(dtype=jnp.bfloat16, **tiny_nets.TINY_SEG),
    mtnet.FineSegNet(dtype=jnp.bfloat16, **tiny_nets.TINY_SEG),
    mtnet.ClassNet(dtype=jnp.bfloat16, **tiny_nets.TINY_CLASS),
  ):
    variables, logits, taps = tiny_nets.shapes(net, hw=(64, 64))
    assert {x.dtype for x in jax.tree.leaves(variables)} == {
      jnp.dtype('float32')
    }
    assert logits.dtype == jnp.float32
    # The computation itself is in bfloat16.
    assert taps['backbone'].dtype == jnp.bfloat16
    assert taps['block1'].dtype == jnp.bfloat16


def test_bfloat16_is_near_float32(fine):
  net, variables = fine
  inputs = tiny_nets.inputs(net, 2, (32, 32))
  logits, _ = tiny_nets.evaluate(net, variables, *inputs)
  short, _ = tiny_nets.evaluate(
    net.clone(dtype=jnp.bfloat16), variables, *inputs
  )
  scale = float(jnp.abs(logits).max())
  assert 0 < float(jnp.abs(short - logits).max()) < 0.05 * scale


# Dependencies.


@pytest.mark.parametrize('name', ('fine', 'class_net'))
def test_evaluation_does_not_depend_on_the_rest_of_the_batch(name, request):
  net, variables = request.getfixturevalue(name)
  hw = (32, 32) if name == 'fine' else (64, 64)
  inputs = tiny_nets.inputs(net, 2, hw)
  others = tiny_nets.inputs(net, 2, hw, seed=1)
  mixed = [
    jnp.concatenate([ours[:1], theirs[1:]])
    for ours, theirs in zip(inputs, others, strict=True)
  ]
  logits, _ = tiny_nets.evaluate(net, variables, *inputs)
  mixed_logits, _ = tiny_nets.evaluate(net, variables, *mixed)
  np.testing.assert_allclose(mixed_logits[0], logits[0], atol=1e-5)
  assert float(jnp.abs(mixed_logits[1] - logits[1]).max()) > 1e-3


def test_fine_seg_net_reads_the_coarse_mask(fine):
  net, variables = fine
  images, mask = tiny_nets.inputs(net, 2, (32, 32))
  logits, taps = tiny_nets.evaluate(net, variables, images, mask)
  moved, moved_taps = tiny_nets.evaluate(net, variables, images, 1 - mask)
  assert float(jnp.abs(moved - logits).max()) > 1e-4
  # The mask enters at the fine layer, not before.
  np.testing.assert_array_equal(moved_taps['encoder'], taps['encoder'])
  np.testing.assert_array_equal(moved_taps['low_level'], taps['low_level'])


def test_synchronised_statistics_are_those_of_the_whole_batch(coarse):
  net, variables = coarse
  net = net.clone(dropout_rates=(0.0, 0.0, 0.0))
  (images,) = tiny_nets.inputs(net, 4, (32, 32))

  def train(net, images):
    (logits, _), updates = net.apply(
      variables, images, train=True, mutable=['batch_stats']
    )
    return logits, updates['batch_stats']

  synced = net.clone(axis_name='devices')
  whole_logits, whole_stats = fast_compile.jit(functools.partial(train, net))(
    images
  )
  split_logits, split_stats = fast_compile.jit(
    jax.vmap(functools.partial(train, synced), axis_name='devices')
  )(images.reshape(2, 2, 32, 32, 3))
  np.testing.assert_allclose(
    split_logits.reshape(whole_logits.shape), whole_logits, atol=2e-3
  )
  jax.tree.map(
    lambda split, whole: np.testing.assert_allclose(
      split[0], whole, rtol=1e-2, atol=1e-3
    ),
    split_stats,
    whole_stats,
  )
  # Training updates the running statistics.
  moved = jax.tree.map(
    lambda new, old: float(jnp.abs(new - old).max()),
    whole_stats,
    variables['batch_stats'],
  )
  assert min(jax.tree.leaves(moved)) > 0


def test_low_level_feature_is_block_2_s_second_convolution(coarse):
  net, variables = coarse
  inputs = tiny_nets.inputs(net, 1, (32, 32))
  # A portable program has no fused loops, so all intermediate values exist.
  with target.portable():
    (_, taps), state = fast_compile.jit(
      functools.partial(net.apply, train=False, capture_intermediates=True)
    )(variables, *inputs)
  block2 = state['intermediates']['backbone']['block2']
  second = block2['sepconv2']['pointwise_bn']['__call__'][0]
  np.testing.assert_array_equal(taps['low_level'], second)
  assert float(second.min()) < 0, 'after the batch norm, before any ReLU'
  # The decoder reads that feature.
  low_level = state['intermediates']['low_level']['__call__'][0]
  assert low_level.shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
  'net',
  (
    mtnet.CoarseSegNet(**{**tiny_nets.TINY_SEG, 'middle_blocks': 3}),
    mtnet.ClassNet(**{**tiny_nets.TINY_CLASS, 'middle_blocks': 3}),
  ),
  ids=('coarse', 'class'),
)
def test_middle_blocks_are_traced_once(net):
  variables, inputs = (
    tiny_nets.init(net, (32, 32)),
    tiny_nets.inputs(net, 1, (32, 32)),
  )
  program = jax.make_jaxpr(
    functools.partial(
      net.apply,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(0)},
    )
  )(variables, *inputs)
  # JAX itself traces small functions once, such as a ReLU; these are excluded.
  inner = [
    eqn.params['jaxpr']
    for eqn in program.eqns
    if eqn.primitive.name == 'jit' and len(eqn.params['jaxpr'].eqns) > 20
  ]
  assert len(inner) == 3
  assert len({id(one) for one in inner}) == 1


# Options that differ between public weights.

_norm = layers.batch_norm(
  train=False,
  axis_name=None,
  epsilon=1e-5,
  momentum=0.9,
  dtype=jnp.float32,
)


def _both_skips(block, **kwargs):
  x = jax.random.normal(jax.random.key(0), (1, 5, 5, 4))
  plain, after_relu = (
    block(norm=_norm, skip_relu=skip_relu, **kwargs)
    for skip_relu in (False, True)
  )
  variables = fast_compile.jit(plain.init)(jax.random.key(1), x)

  def output(module):
    out = fast_compile.jit(module.apply)(variables, x)
    return out[0] if isinstance(out, tuple) else out

  return x, output(plain), output(after_relu)


@pytest.mark.parametrize(
  'block', (xception.AlignedBlock, xception.XceptionBlock)
)
def test_skip_relu_changes_identity_skips(block):
  x, plain, after_relu = _both_skips(block, widths=(4, 4, 4))
  np.testing.assert_allclose(after_relu - plain, jax.nn.relu(x) - x, atol=1e-5)


@pytest.mark.parametrize(
  'block, kwargs',
  (
    (xception.AlignedBlock, {'widths': (4, 4, 6)}),
    (xception.AlignedBlock, {'widths': (4, 4, 4), 'stride': 2}),
    (xception.XceptionBlock, {'widths': (4, 6)}),
    (xception.XceptionBlock, {'widths': (4, 4), 'pool': True}),
  ),
)
def test_skip_relu_leaves_projected_skips_alone(block, kwargs):
  _, plain, after_relu = _both_skips(block, **kwargs)
  np.testing.assert_array_equal(after_relu, plain)


def test_options_of_public_weights_change_the_outputs(coarse, class_net):
  for (net, variables), hw, changes in (
    (coarse, (32, 32), ({'skip_relu': True}, {'tail_dilation': 1})),
    (
      class_net,
      (64, 64),
      (
        {'skip_relu': True},
        {'tail_dilation': 1},
        {'pool_padding': 'same'},
      ),
    ),
  ):
    inputs = tiny_nets.inputs(net, 1, hw)
    logits, _ = tiny_nets.evaluate(net, variables, *inputs)
    for change in changes:
      changed, _ = tiny_nets.evaluate(net.clone(**change), variables, *inputs)
      assert float(jnp.abs(changed - logits).max()) > 1e-5, change


def test_input_scale_by_hand():
  images = jnp.asarray([-1.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
  # (-1 - .5) / .25, (0 + .5) / .5, (1 - 0) / 2.
  scaled = layers.InputScale((0.5, -0.5, 0.0), (0.25, 0.5, 2.0))(images)
  np.testing.assert_allclose(scaled.ravel(), [-6, 1, 0.5])
  np.testing.assert_array_equal(layers.InputScale()(images), images)


def test_running_average_is_weighted_by_the_momentum():
  # The running mean starts at 0, and the batch's is 8: .9 * 0 + .1 * 8 = .8.
  make = layers.batch_norm(
    train=True,
    axis_name=None,
    epsilon=1e-5,
    momentum=0.9,
    dtype=jnp.float32,
  )
  norm = make('bn')
  x = jnp.full((2, 3, 3, 1), 8.0)
  variables = norm.init(jax.random.key(0), x)
  _, updates = norm.apply(variables, x, mutable=['batch_stats'])
  np.testing.assert_allclose(updates['batch_stats']['mean'], [0.8], rtol=1e-5)
