"""Stages, their losses, the variables they start from, the masks they pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import mtnet as mtnet_config
from mtnet_jax import losses
from mtnet_jax.models import chain
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.system import devices
from mtnet_jax.training import options
from mtnet_jax.training import stages
from mtnet_jax.training import start
from mtnet_jax.training import step

_SIZE = 32


@pytest.fixture(scope='module', name='by_name')
def _by_name():
  """The stages, with networks that compile quickly."""
  config = mtnet_config.get_config('test')
  shallow = {
    'entry_widths': (4, 6),
    'middle_blocks': 0,
    'tail_widths': (6,),
    'axis_name': None,
  }
  return {
    stage.name: dataclasses.replace(stage, net=stage.net.clone(**shallow))
    for stage in stages.make_stages(config)
  }


@pytest.fixture(scope='module', name='trained')
def _trained(by_name):
  """Coarse variables, with a different value in every leaf."""
  net = by_name['coarse'].net
  shapes = jax.eval_shape(
    functools.partial(net.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, _SIZE, _SIZE, 3)),
  )
  leaves, structure = jax.tree.flatten(dict(shapes))
  return jax.tree.unflatten(
    structure,
    [np.full(x.shape, i + 1, x.dtype) for i, x in enumerate(leaves)],
  )


def _paths(tree):
  return {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def test_stages_come_in_order(by_name):
  assert tuple(by_name) == nets_lib.ORDER
  coarse, classify, fine = (by_name[name] for name in nets_lib.ORDER)
  assert (coarse.inputs, coarse.starts_from) == ('nothing', ())
  assert (classify.inputs, classify.starts_from) == ('mask', ())
  assert (fine.inputs, fine.starts_from) == ('mask', ('coarse',))
  assert coarse.select_by == fine.select_by == 'jaccard'
  assert classify.select_by == 'auc'


def test_networks_have_the_fields_of_the_config():
  with mtnet_config.get_config('test').unlocked() as config:
    config.dtype = 'bfloat16'
    config.sync_batch_norm = True
  nets = {stage.name: stage.net for stage in stages.make_stages(config)}
  for net in nets.values():
    assert net.dtype == jnp.bfloat16 and net.axis_name == devices.AXIS
    hash(net)
  assert tuple(nets['fine'].entry_widths) == tuple(config.seg_net.entry_widths)
  assert tuple(nets['class'].tail_widths) == tuple(config.class_net.tail_widths)
  with config.unlocked():
    config.sync_batch_norm = False
  for stage in stages.make_stages(config):
    assert stage.net.axis_name is None
  for net in nets_lib.make_nets(config).values():
    assert net.axis_name is None


def test_losses_have_the_hyperparameters_of_the_config():
  config = ml_collections.ConfigDict(mtnet_config.get_config('test'))
  config.rank_loss.weight = 0.5
  config.rank_loss.top_k = 3
  config.rank_loss.margin = 0.7
  hyperparams = options.loss_hyperparams(config)
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(2, 5, 5, 1)), jnp.float32)
  mask = jnp.asarray(rng.random((2, 5, 5, 1)) < 0.5, jnp.float32)
  expected = losses.hybrid_loss(
    1 / (1 + jnp.exp(-logits)), mask, rank_weight=0.5, top_k=3, margin=0.7
  )
  coarse, classify, fine = (stage.task for stage in stages.make_stages(config))
  assert coarse == fine
  np.testing.assert_allclose(
    step.loss_of_task(coarse, logits, {'mask': mask}, hyperparams, max_top_k=9),
    expected,
    rtol=1e-5,
  )
  config.cross_entropy_weight = 0.3
  np.testing.assert_allclose(
    step.loss_of_task(
      coarse,
      logits,
      {'mask': mask},
      options.loss_hyperparams(config),
      max_top_k=9,
      cross_entropy=options.step_options(
        config, steps_per_epoch=1
      ).cross_entropy,
    ),
    expected + 0.3 * losses.pixel_cross_entropy(logits, mask),
    rtol=1e-5,
  )
  # The paper has no cross-entropy, and the program of its step no part of it.
  paper = mtnet_config.get_config()
  assert not options.step_options(paper, steps_per_epoch=1).cross_entropy
  assert options.step_options(paper, steps_per_epoch=1).weight_average == 0
  # -log(1/2), and -log(1 - 3/4) for a wrong logit of log 3.
  np.testing.assert_allclose(
    step.loss_of_task(
      classify,
      jnp.asarray([0.0, np.log(3.0)]),
      {'label': jnp.asarray([1, 0])},
      hyperparams,
      max_top_k=9,
    ),
    [np.log(2), np.log(4)],
    rtol=1e-5,
  )


def test_pass_mask_hard_is_zero_or_one():
  # A probability of exactly 1/2 (logit 0) is nodule.
  logits = jnp.asarray([-3.0, -1e-3, 0.0, 2.0]).reshape(1, 2, 2, 1)
  mask = chain.pass_mask(logits, 'hard')
  assert mask.dtype == jnp.float32 and mask.shape == (1, 2, 2, 1)
  np.testing.assert_array_equal(mask.ravel(), [0, 0, 1, 1])


def test_pass_mask_none_is_zeros():
  mask = chain.pass_mask(jnp.full((1, 2, 2, 1), 9.0), 'none')
  assert mask.dtype == jnp.float32
  np.testing.assert_array_equal(mask, np.zeros((1, 2, 2, 1)))


def test_only_the_stages_of_the_config_are_trained():
  config = mtnet_config.get_config('test')
  config.stages = ('coarse', 'fine')
  assert [stage.name for stage in stages.make_stages(config)] == [
    'coarse',
    'fine',
  ]


def test_pass_mask_refuses_other_forms():
  with pytest.raises(ValueError, match='hrad'):
    chain.pass_mask(jnp.zeros((1, 1, 1, 1)), 'hrad')


def test_pass_mask_soft_is_the_probability():
  logits = jnp.asarray([-np.log(3.0), 0.0, np.log(3.0)]).reshape(1, 1, 3, 1)
  np.testing.assert_allclose(
    chain.pass_mask(logits, 'soft').ravel(), [0.25, 0.5, 0.75], rtol=1e-6
  )


def test_take_over_copies_every_leaf_and_keeps_the_rest():
  initial = {
    'a': {'x': jnp.zeros(2), 'y': jnp.zeros(())},
    'fine_layer': jnp.ones(3),
  }
  trained = {'a': {'x': np.array([1.0, 2.0]), 'y': np.float64(5)}}
  taken = variables_lib.take_over(initial, trained, path=('fine',))
  np.testing.assert_array_equal(taken['a']['x'], [1, 2])
  assert taken['a']['y'] == 5 and taken['a']['y'].dtype == jnp.float32
  assert taken['fine_layer'] is initial['fine_layer']
  np.testing.assert_array_equal(initial['a']['x'], [0, 0])


@pytest.mark.parametrize(
  'trained, message',
  (
    ({'a': {'x': np.zeros(2), 'z': np.zeros(1)}}, r"fine/a: .*\['z'\]"),
    ({'b': np.zeros(1)}, r"fine: .*\['a', 'b'\]"),
    # A missing variable must not stay random.
    ({}, r"fine: .*\['a'\]"),
    ({'a': np.zeros(2)}, 'fine/a: a tensor in one of the two trees'),
    ({'a': {'x': np.zeros(3)}}, r'fine/a/x: .*\(3,\).*\(2,\)'),
    # One element must not be broadcast.
    ({'a': {'x': np.zeros(1)}}, r'fine/a/x: .*\(1,\).*\(2,\)'),
  ),
)
def test_take_over_refuses_what_does_not_fit(trained, message):
  initial = {'a': {'x': jnp.zeros(2)}}
  with pytest.raises(ValueError, match=message):
    variables_lib.take_over(initial, trained, path=('fine',))


def test_fine_starts_as_coarse_except_the_fine_layer(by_name, trained):
  variables = start.init_variables(
    by_name['fine'], 1, size=_SIZE, started=trained
  )
  ours, theirs = _paths(variables), _paths(trained)
  for path, leaf in theirs.items():
    np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
  own = ours.keys() - theirs.keys()
  assert own and all("['fine_layer']" in path for path in own)
  # The fine layer is newly initialised, not zero.
  kernel = variables['params']['fine_layer']['conv']['kernel']
  assert float(jnp.std(kernel)) > 0


def test_class_net_starts_with_an_averaged_mask_channel(by_name):
  stage = by_name['class']
  stage = dataclasses.replace(
    stage, net=stage.net.clone(entry_widths=(4, 4), tail_widths=())
  )
  variables = start.init_variables(stage, 0, size=64)
  backbone = variables['params']['backbone']
  kernel = backbone['conv1']['kernel']
  np.testing.assert_allclose(
    kernel[:, :, 3], kernel[:, :, :3].mean(2), rtol=1e-5, atol=1e-7
  )
  # Kernels have He's variance of 2 / fan-in; the first has a fan-in of 9 x 4.
  assert float(kernel[:, :, :3].std()) == pytest.approx(
    np.sqrt(2 / 36), rel=0.3
  )
  # Two layers with the same shape have different kernels.
  first, second = (
    backbone['block2'][name]['pointwise']['kernel']
    for name in ('sepconv1', 'sepconv2')
  )
  assert first.shape == second.shape and (first != second).any()
