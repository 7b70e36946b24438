"""Networks that MT-Net is compared with: their sizes and dependencies."""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import made_run
import numpy as np
import pytest
import tiny_nets

from mtnet_jax.models import baselines
from mtnet_jax.models import joint
from mtnet_jax.models import mtnet

_SEG = {
  'stem_widths': (4, 4),
  'entry_widths': (4, 6),
  'middle_blocks': 0,
  'exit_width': 6,
  'tail_widths': (8,),
  'aspp_features': 4,
  'aspp_rates': (2,),
  'low_level_features': 3,
  'decoder_features': 4,
  'dropout_rates': (0.0, 0.0, 0.0),
}
_NETS = {
  'shared': baselines.SharedNet(**_SEG),
  'feedback': baselines.SharedNet(use_segmentation=True, **_SEG),
  'unet': baselines.UNet(widths=(4, 6, 8, 8, 10)),
  'joint': joint.JointNet(
    mtnet.CoarseSegNet(**_SEG),
    mtnet.ClassNet(**made_run.TINY['class_net']),
    mtnet.FineSegNet(**_SEG),
  ),
}
_SIDE = 32


def _shapes(net, hw=(224, 224), batch=2):
  (logits, taps), variables = jax.eval_shape(
    functools.partial(net.init_with_output, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct((batch, *hw, 3), jnp.float32),
  )
  return variables, logits, taps


def _images(batch=2, hw=(_SIDE, _SIDE)):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.uniform(-1, 1, (batch, *hw, 3)), jnp.float32)


@functools.cache
def _variables(name):
  """Random variables, with statistics that differ from their initial values."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    leaf_name = path[-1].key
    if leaf_name == 'kernel':
      spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      values = spread * rng.normal(size=leaf.shape)
    elif leaf_name in ('scale', 'var'):
      values = rng.uniform(0.7, 1.4, leaf.shape)
    else:
      values = rng.uniform(-0.3, 0.3, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  variables, _, _ = _shapes(_NETS[name], (_SIDE, _SIDE))
  return jax.tree_util.tree_map_with_path(draw, dict(variables))


@functools.cache
def _gradients(name):
  """Gradients of the sum of each kind of logits: key -> path -> gradient."""
  net, variables = _NETS[name], _variables(name)

  @fast_compile.jit
  def jacobian(params, images):
    def sums(params):
      logits, _ = net.apply(
        {**variables, 'params': params}, images, train=False
      )
      return {key: jnp.sum(logits[key]) for key in ('fine', 'class')}

    return jax.jacrev(sums)(params)

  found = jacobian(variables['params'], _images())
  return {
    key: {
      jax.tree_util.keystr(path, simple=True, separator='/'): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    for key, tree in found.items()
  }


def _reached(name, key, prefix):
  """Whether a logit's gradient reaches all, and any, parameters of a prefix."""
  reached = [
    bool(jnp.any(leaf != 0))
    for path, leaf in _gradients(name)[key].items()
    if path.startswith(prefix)
  ]
  assert reached, prefix
  return all(reached), any(reached)


# Sizes.


def test_shared_net_adds_a_classifier_to_coarse_seg_net():
  variables, logits, taps = _shapes(baselines.SharedNet())
  # 2048 weights and a bias.
  assert tiny_nets.count(variables['params']) == 54_708_417 + 2048 + 1
  assert logits['fine'].shape == (2, 224, 224, 1)
  assert logits['class'].shape == (2,)
  assert taps['cam'].shape == (2, 14, 14)
  coarse, _, _ = _shapes(mtnet.CoarseSegNet())
  for collection, tree in variables.items():
    rest = dict(tree)
    rest.pop('class_head', None)
    assert jax.tree.map(jnp.shape, rest) == jax.tree.map(
      jnp.shape, dict(coarse[collection])
    )


def test_feedback_adds_the_fusion():
  variables, logits, taps = _shapes(baselines.SharedNet(use_segmentation=True))
  # 1 x 1 from 2048 + 256 to 2048 channels, its biases, and the batch norm's
  # scales and biases.
  fusion = (2048 + 256) * 2048 + 2048 + 2 * 2048
  assert tiny_nets.count(variables['params']) == 54_708_417 + 2048 + 1 + fusion
  assert taps['class_fusion'].shape == (2, 14, 14, 2048)
  # Training from a Coarse Seg-net must initialise exactly these.
  coarse, _, _ = _shapes(mtnet.CoarseSegNet())
  own = variables['params'].keys() - coarse['params'].keys()
  assert own == set(baselines.CLASS_LAYERS)


def test_u_net_has_the_usual_size():
  """PyTorch's usual U-Net with these options has as many parameters."""
  variables, logits, taps = _shapes(baselines.UNet())
  widths = (64, 128, 256, 512, 1024)

  def double(inputs, outputs):
    # Two kernels without bias, each with a batch norm's scales and biases.
    return 9 * inputs * outputs + 9 * outputs * outputs + 2 * 2 * outputs

  down = sum(map(double, (3, *widths[:-1]), widths))
  up = sum(
    (4 * 2 * width * width + width) + double(2 * width, width)
    for width in widths[:-1]
  )
  assert down + up + (64 + 1) == 31_037_633
  assert tiny_nets.count(variables['params']) == 31_037_633
  assert logits.shape == (2, 224, 224, 1)
  assert taps['down4'].shape == (2, 28, 28, 512)
  assert taps['bottom'].shape == (2, 14, 14, 1024)
  assert taps['up1'].shape == (2, 224, 224, 64)


def test_variables_of_the_joint_net_are_those_of_its_networks():
  net = _NETS['joint']
  variables, _, _ = _shapes(net, (_SIDE, _SIDE))
  images = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 3), jnp.float32)
  mask = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 1), jnp.float32)
  alone = {
    name: jax.eval_shape(
      functools.partial(part.init, train=False), jax.random.key(0), *inputs
    )
    for name, part, inputs in (
      ('coarse', net.coarse_net, (images,)),
      ('class', net.class_net, (images, mask)),
      ('fine', net.fine_net, (images, mask)),
    )
  }
  assert jax.tree.map(jnp.shape, joint.joined(alone)) == jax.tree.map(
    jnp.shape, dict(variables)
  )


@pytest.mark.parametrize('hw', ((33, 47), (50, 64)))
@pytest.mark.parametrize('name', _NETS)
def test_logits_have_the_images_size(name, hw):
  _, logits, _ = _shapes(_NETS[name], hw, batch=3)
  if name == 'unet':
    logits = {'fine': logits}
  for key, x in logits.items():
    assert x.dtype == jnp.float32
    assert x.shape == ((3,) if key == 'class' else (3, *hw, 1))


@pytest.mark.parametrize('name', ('feedback', 'unet'))
def test_bfloat16_keeps_parameters_and_logits_in_float32(name):
  net = _NETS[name].clone(dtype=jnp.bfloat16)
  variables, logits, taps = _shapes(net, (_SIDE, _SIDE))
  for x in jax.tree.leaves((variables, logits)):
    assert x.dtype == jnp.float32
  computed = ('class_fusion',) if name == 'feedback' else ('bottom', 'up1')
  for tap in computed:
    assert taps[tap].dtype == jnp.bfloat16


# Dependencies.


@pytest.mark.parametrize('name', ('shared', 'feedback'))
@pytest.mark.parametrize('key', ('fine', 'class'))
def test_both_tasks_update_the_whole_encoder(name, key):
  assert _reached(name, key, 'backbone/') == (True, True)


@pytest.mark.parametrize('name', ('shared', 'feedback'))
def test_segmentation_never_updates_the_classifier(name):
  assert _reached(name, 'fine', 'class_') == (False, False)


def test_without_feedback_classification_stops_at_the_encoder():
  for prefix in ('aspp/', 'low_level/', 'decoder1/', 'decoder2/', 'classifier'):
    assert _reached('shared', 'class', prefix) == (False, False)


def test_with_feedback_classification_updates_the_decoder():
  for prefix in ('aspp/', 'low_level/', 'decoder1/', 'decoder2/'):
    assert _reached('feedback', 'class', prefix) == (True, True), prefix
  # The features are fed back, not the mask.
  assert _reached('feedback', 'class', 'classifier') == (False, False)


@pytest.mark.slow
@pytest.mark.parametrize('key', ('class', 'fine'))
def test_through_the_soft_mask_both_tasks_update_coarse_seg_net(key):
  assert _reached('joint', key, 'coarse_net/') == (True, True)
  own = f'{key}_net/'
  for prefix in ('class_net/', 'fine_net/'):
    assert _reached('joint', key, prefix)[1] == (prefix == own)


def test_joint_net_computes_what_its_networks_compute():
  net, variables, images = _NETS['joint'], _variables('joint'), _images()
  parts = {
    name: {
      collection: tree[f'{name}_net'] for collection, tree in variables.items()
    }
    for name in ('coarse', 'class', 'fine')
  }

  @fast_compile.jit
  def both(variables, parts, images):
    coarse, _ = net.coarse_net.apply(parts['coarse'], images, train=False)
    mask = 1 / (1 + jnp.exp(-coarse))
    malignant, taps = net.class_net.apply(
      parts['class'], images, mask, train=False
    )
    fine, _ = net.fine_net.apply(parts['fine'], images, mask, train=False)
    by_hand = {'coarse': coarse, 'class': malignant, 'fine': fine}, taps['cam']
    return net.apply(variables, images, train=False), by_hand

  (logits, taps), (expected, cam) = both(variables, parts, images)
  for key, x in expected.items():
    np.testing.assert_allclose(logits[key], x, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(taps['cam'], cam, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ('shared', 'feedback'))
def test_mean_of_the_activation_map_plus_bias_is_the_logit(name):
  variables = _variables(name)
  logits, taps = fast_compile.jit(
    functools.partial(_NETS[name].apply, train=False)
  )(variables, _images())
  head = variables['params']['class_head']
  features = taps['class_fusion' if name == 'feedback' else 'backbone']
  # Global average pooling and a linear layer.
  pooled = np.mean(np.asarray(features, np.float64), (1, 2))
  kernel = np.asarray(head['classifier']['kernel'], np.float64)[0, 0, :, 0]
  np.testing.assert_allclose(
    logits['class'], pooled @ kernel + head['bias'], rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    np.mean(taps['cam'], (1, 2)) + head['bias'],
    logits['class'],
    rtol=1e-4,
    atol=1e-5,
  )


# Comparison of the U-Net with PyTorch's layers.


@pytest.mark.extra
def test_u_net_agrees_with_pytorch():
  """Builds the same network from `torch.nn.functional`, at an odd size."""
  torch = pytest.importorskip('torch', reason='needs the extra interop')
  functional = torch.nn.functional
  variables, images = _variables('unet'), _images(hw=(37, 50))
  params, stats = variables['params'], variables['batch_stats']

  def tensor(x, *axes):
    x = np.asarray(x, np.float64)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(axes or None)))

  def double_conv(x, name):
    for i in '12':
      kernel = tensor(params[name][f'conv{i}']['kernel'], 3, 2, 0, 1)
      norm, running = params[name][f'bn{i}'], stats[name][f'bn{i}']
      x = functional.conv2d(x, kernel, padding=1)
      x = functional.batch_norm(
        x,
        tensor(running['mean'], 0),
        tensor(running['var'], 0),
        tensor(norm['scale'], 0),
        tensor(norm['bias'], 0),
        eps=1e-5,
      ).relu()
    return x

  x, skips = tensor(images, 0, 3, 1, 2), []
  for i in range(1, 5):
    skips.append(double_conv(x, f'down{i}'))
    x = functional.max_pool2d(skips[-1], 2, ceil_mode=True)
  x = double_conv(x, 'bottom')
  for i in range(4, 0, -1):
    layer, skip = params[f'upconv{i}'], skips.pop()
    x = functional.conv_transpose2d(
      x,
      tensor(layer['kernel'], 2, 3, 0, 1),
      tensor(layer['bias'], 0),
      stride=2,
    )
    x = x[:, :, : skip.shape[2], : skip.shape[3]]
    x = double_conv(torch.cat([skip, x], 1), f'up{i}')
  layer = params['classifier']
  expected = functional.conv2d(
    x, tensor(layer['kernel'], 3, 2, 0, 1), tensor(layer['bias'], 0)
  )
  logits, _ = fast_compile.jit(
    functools.partial(_NETS['unet'].apply, train=False)
  )(variables, images)
  np.testing.assert_allclose(
    logits, expected.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4
  )
