"""The inputs that networks receive from others."""

import functools
import types

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.models import chain
from mtnet_jax.models import mtnet
from mtnet_jax.models import predictor
from mtnet_jax.models import strategies

_SIDE = 8


class _Fake:
  """A network that returns fixed outputs and records its inputs."""

  def __init__(self, logits, **taps):
    self.logits, self.taps, self.inputs = logits, taps, None

  def apply(self, variables, *inputs, train):
    assert variables == 'variables' and not train
    self.inputs = inputs
    return self.logits, self.taps


@pytest.fixture(name='images')
def _images():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.uniform(-1, 1, (2, _SIDE, _SIDE, 3)), jnp.float32)


@pytest.fixture(name='fakes')
def _fakes():
  rng = np.random.default_rng(1)

  def mask_logits():
    return jnp.asarray(rng.normal(size=(2, _SIDE, _SIDE, 1)), jnp.float32)

  return {
    'coarse': _Fake(mask_logits()),
    'class': _Fake(
      jnp.asarray([-1.0, 2.0]), cam=jnp.asarray(rng.normal(size=(2, 2, 2)))
    ),
    'fine': _Fake(mask_logits()),
    'joint': _Fake(
      {'fine': mask_logits(), 'class': jnp.zeros(2)}, cam=jnp.ones((2, 2, 2))
    ),
  }


def _run(fakes, images, strategy, stages=None, coarse_mask='hard'):
  stages = stages or strategies.stages_of(strategy)
  return chain.run(
    strategies.predicting(strategy, stages),
    fakes,
    dict.fromkeys(stages, 'variables'),
    images,
    strategy=strategy,
    coarse_mask=coarse_mask,
  )


def _sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_mtnet_passes_the_coarse_mask_to_both_networks(fakes, images):
  outputs = _run(fakes, images, 'mtnet')
  mask = np.asarray(fakes['coarse'].logits) >= 0
  assert 0.2 < mask.mean() < 0.8
  for name in ('class', 'fine'):
    input_images, input_mask = fakes[name].inputs
    np.testing.assert_array_equal(input_images, images)
    np.testing.assert_array_equal(input_mask, mask)
  assert len(fakes['coarse'].inputs) == 1
  assert outputs.keys() == {'coarse', 'class', 'fine', 'cam'}
  assert outputs['fine'] is fakes['fine'].logits


def test_cam_passes_the_activation_map_to_the_fine_net_too(fakes, images):
  # Constant maps, which a resize does not change.
  fakes['class'].taps['cam'] = jnp.broadcast_to(
    jnp.asarray([0.0, np.log(3.0)])[:, None, None], (2, 2, 2)
  )
  _run(fakes, images, 'cam')
  assert fakes['class'].inputs[1].shape == (2, _SIDE, _SIDE, 1)
  maps = fakes['fine'].inputs[1]
  np.testing.assert_array_equal(maps[..., 0], fakes['class'].inputs[1][..., 0])
  np.testing.assert_allclose(maps[0, ..., 1], 0.5, rtol=1e-6)
  np.testing.assert_allclose(maps[1, ..., 1], 0.75, rtol=1e-6)


@pytest.mark.parametrize('strategy', ('shared', 'feedback', 'finetune'))
def test_a_joint_network_replaces_all_others(fakes, images, strategy):
  outputs = _run(fakes, images, strategy)
  assert outputs['fine'] is fakes['joint'].logits['fine']
  assert outputs['class'] is fakes['joint'].logits['class']
  assert outputs['cam'] is fakes['joint'].taps['cam']
  for name in ('coarse', 'class', 'fine'):
    assert fakes[name].inputs is None


def test_before_its_joint_stage_finetune_is_mtnet(fakes, images):
  outputs = _run(fakes, images, 'finetune', ('coarse', 'fine'))
  assert outputs.keys() == {'coarse', 'fine'}
  assert fakes['joint'].inputs is None


def test_networks_of_single_tasks_receive_only_images(fakes, images):
  _run(fakes, images, 'single')
  for name in ('class', 'fine'):
    (input_images,) = fakes[name].inputs
    np.testing.assert_array_equal(input_images, images)


def test_serial_cuts_the_mask_out_of_the_image(fakes, images):
  _run(fakes, images, 'serial')
  (cut,) = fakes['class'].inputs
  mask = np.asarray(fakes['fine'].logits)[..., 0] >= 0
  np.testing.assert_array_equal(cut[mask], images[mask])
  # Air, the window's lower end.
  assert np.all(np.asarray(cut)[~mask] == -1)


def test_a_soft_mask_fades_to_air(fakes, images):
  _run(fakes, images, 'serial', coarse_mask='soft')
  (cut,) = fakes['class'].inputs
  share = _sigmoid(fakes['fine'].logits)
  np.testing.assert_allclose(
    cut, share * np.asarray(images) + (1 - share) * -1, atol=1e-6
  )


def test_the_serial_classifier_sees_only_the_cut_out():
  """HU outside of the mask do not change the output of a real Class-net."""
  patch, size = 16, 64
  rows, columns = np.mgrid[:size, :size] - size / 2
  disc = np.hypot(rows, columns) < size / 5
  fine = types.SimpleNamespace(
    apply=lambda variables, images, train: (
      jnp.broadcast_to(
        jnp.where(disc, 5.0, -5.0)[None, ..., None], (*images.shape[:3], 1)
      ),
      {},
    )
  )
  net = mtnet.ClassNet(
    stem_widths=(4, 4),
    entry_widths=(4,),
    middle_blocks=0,
    exit_width=6,
    tail_widths=(6,),
    use_coarse_mask=False,
  )
  shapes = jax.eval_shape(
    functools.partial(net.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, size, size, 3)),
  )
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name == 'kernel':
      spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return jnp.asarray(spread * rng.normal(size=leaf.shape), jnp.float32)
    return jnp.full(leaf.shape, float(name in ('scale', 'var')))

  variables = jax.tree_util.tree_map_with_path(draw, shapes)

  # Compiling dominates the time of this test.
  @functools.partial(
    jax.jit,
    static_argnums=1,
    compiler_options=fast_compile.OPTIONS,
  )
  def malignancy(hu, strategy):
    outputs = predictor.predict_step(
      {'fine': {}, 'class': variables},
      hu[None],
      nets={'fine': fine, 'class': net},
      size=size,
      window=(-1000.0, 400.0),
      coarse_mask='hard',
      strategy=strategy,
    )
    return outputs['class'][0]

  hu = rng.integers(-900, 300, (patch, patch)).astype(np.int16)
  rows, columns = np.mgrid[:patch, :patch] - (patch - 1) / 2
  distance = np.hypot(rows, columns)
  # The disc has a radius of 3.2 patch pixels; resampling reads one more.
  outside = np.where(distance > 5, rng.integers(-900, 300, hu.shape), hu)
  inside = np.where(distance < 2, 300, hu).astype(np.int16)
  outside = outside.astype(np.int16)
  assert (outside != hu).any()
  alone = malignancy(hu, 'serial')
  assert 0.01 < alone < 0.99
  assert malignancy(outside, 'serial') == alone
  assert malignancy(inside, 'serial') != alone
  # Without the cut-out, the same network does depend on it.
  assert malignancy(outside, 'single') != malignancy(hu, 'single')
