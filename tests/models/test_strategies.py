"""Strategies: their stages, what they start from, what they cost."""

import dataclasses
import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import main_job
import numpy as np
import pytest
import step_job

from mtnet_jax import losses
from mtnet_jax import metrics
from mtnet_jax.evaluation import finished_run
from mtnet_jax.experiments import run
from mtnet_jax.experiments import sweep_plan
from mtnet_jax.models import baselines
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.reports import paper
from mtnet_jax.system import errors
from mtnet_jax.training import check_config
from mtnet_jax.training import from_public
from mtnet_jax.training import stages
from mtnet_jax.training import start
from mtnet_jax.training import step
from mtnet_jax.training import trainer as trainer_lib

_OTHERS = tuple(name for name in strategies.STRATEGIES if name != 'mtnet')


def _baselines():
  spec = importlib.util.spec_from_file_location(
    'baselines_config', main_job.ROOT / 'configs' / 'baselines.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _config(strategy, changes=None):
  config = step_job.tiny_config(sync_batch_norm=False)
  small = {'middle_blocks': 0, 'exit_width': 4, 'tail_widths': (4,)}
  with config.unlocked():
    config.strategy = strategy
    config.coarse_mask = 'soft'
    config.image_size = 32
    config.seg_net.update(small, stem_widths=(4,), entry_widths=(4, 4))
    config.class_net.update(small, stem_widths=(4,), entry_widths=(4,))
    config.update(changes or {})
  return config


# What the stages are.


@pytest.mark.parametrize('strategy', strategies.STRATEGIES)
def test_givers_and_starts_come_before(strategy):
  before = set()
  for stage, part in strategies.STRATEGIES[strategy].items():
    assert stage in strategies.STAGES
    assert {
      *strategies.upstream_names(strategy, stage),
      *part.starts_from,
    } <= before
    before.add(stage)


@pytest.mark.parametrize('strategy', strategies.STRATEGIES)
def test_networks_are_those_of_the_stages(strategy):
  config = _config(strategy)
  check_config.check_config(config)
  made = stages.make_stages(config)
  names = tuple(stage.name for stage in made)
  assert names == nets_lib.names(config) == strategies.stages_of(strategy)
  assert set(nets_lib.make_nets(config)) == set(names)
  assert set(nets_lib.variable_shapes(config)) == set(names)
  for stage in made:
    assert stage.epochs == config[f'{stage.name}_stage'].epochs


def test_no_two_stages_share_a_seed():
  # As runs without strategies had them.
  assert [strategies.stage_seed(5, stage) for stage in nets_lib.ORDER] == [
    15,
    16,
    17,
  ]
  seeds = [
    strategies.stage_seed(seed, stage)
    for seed in range(1000)
    for stage in strategies.STAGES
  ]
  assert len(set(seeds)) == len(seeds)
  assert max(seeds) < 2**32


def test_the_single_xception_is_the_original_one():
  nets = nets_lib.make_nets(_config('single'))
  assert isinstance(nets['fine'], baselines.UNet)
  net = nets['class']
  assert net.exit_pool and net.tail_dilation == 1 and not net.use_coarse_mask


def test_only_feedback_reads_segmentation_features():
  assert not nets_lib.make_nets(_config('shared'))['joint'].use_segmentation
  assert nets_lib.make_nets(_config('feedback'))['joint'].use_segmentation


@pytest.mark.parametrize(
  'changes, message',
  (
    ({'strategy': 'cereal'}, "strategy='cereal' is none of mtnet, shared"),
    ({'strategy': 'finetune', 'coarse_mask': 'hard'}, 'coarse_mask=soft'),
    ({'strategy': 'shared', 'stages': ('coarse',)}, 'which has joint'),
    ({'stages': ('fine',)}, "'fine' of strategy 'mtnet' needs coarse"),
    ({'strategy': 'cam', 'stages': ('coarse', 'fine')}, 'needs class'),
    ({'stages': ('coarse', 'gross')}, 'must be of coarse, class, fine, joint'),
    ({'class_weight': -1.0}, 'class_weight=-1.0 must be at least 0'),
    (
      {'strategy': 'shared', 'joint_stage': {'epochs': 0}},
      'joint_stage.epochs=0 must be at least 1',
    ),
  ),
)
def test_values_that_cannot_be_used_are_refused(changes, message):
  with pytest.raises(errors.InputError, match=message):
    check_config.check_config(_config('mtnet', changes))


# What they start from.


def _values(tree, value):
  return jax.tree.map(lambda x: np.full(x.shape, value, x.dtype), tree)


def test_finetuning_starts_where_the_three_networks_ended():
  config = _config('finetune')
  shapes = nets_lib.variable_shapes(config)
  trained = {
    name: _values(shapes[name], i) for i, name in enumerate(nets_lib.ORDER, 1)
  }
  *_, stage = stages.make_stages(config)
  started = start.inherited(stage, trained)
  for collection in ('params', 'batch_stats'):
    for i, name in enumerate(nets_lib.ORDER, 1):
      values = set(
        np.concatenate(
          [
            np.ravel(leaf)
            for leaf in jax.tree.leaves(started[collection][f'{name}_net'])
          ]
        )
      )
      assert values == {i}
  # `take_over` refuses whatever does not fit in every name and shape.
  jax.eval_shape(
    functools.partial(
      start.init_variables, stage, 0, size=32, newly_initialised=()
    ),
    started=started,
  )


def test_the_fine_layer_of_cam_reads_one_map_more():
  fine = {
    strategy: nets_lib.variable_shapes(_config(strategy))['fine']['params']
    for strategy in ('mtnet', 'cam')
  }
  kernels = {
    strategy: tree['fine_layer']['conv']['kernel'].shape
    for strategy, tree in fine.items()
  }
  features = _config('cam').seg_net.aspp_features
  assert kernels['mtnet'] == (1, 1, features + 1, features)
  assert kernels['cam'] == (1, 1, features + 2, features)


def test_public_weights_of_a_shared_net_are_those_of_its_coarse_net():
  config = _config('shared')
  net = nets_lib.make_nets(config)['joint']
  part = from_public.segmentation_part(net)
  assert part == nets_lib.make_nets(_config('mtnet'))['coarse']
  coarse = _values(nets_lib.variable_shapes(_config('mtnet'))['coarse'], 1)
  (stage,) = stages.make_stages(config)
  jax.eval_shape(
    functools.partial(
      start.init_variables,
      stage,
      0,
      size=32,
      newly_initialised=baselines.CLASS_LAYERS,
    ),
    started=coarse,
  )


@pytest.mark.parametrize(
  'strategy, task',
  (
    ('single', 'segmentation'),
    ('shared', 'classification'),
    ('feedback', 'classification'),
  ),
)
def test_weights_that_no_network_takes_are_refused(tmp_path, strategy, task):
  config = _config(strategy, {'pretrained': {task: 'weights.pth'}})
  with pytest.raises(errors.InputError, match=f'{task}: strategy .{strategy}'):
    from_public.settle(config, tmp_path)


# How both tasks are learned at once.


def _loss(labels, logits, weight):
  config = _config('shared', {'class_weight': weight})
  rng = np.random.default_rng(0)
  mask = jnp.asarray(rng.random((len(labels), 6, 6, 1)) < 0.5, jnp.float32)
  numbers = step.loss_hyperparams(config)
  each = step.loss_of_task(
    'both',
    logits,
    {'mask': mask, 'label': jnp.asarray(labels)},
    numbers,
    max_top_k=20,
  )
  return each, mask


def test_loss_of_both_tasks_by_hand():
  rng = np.random.default_rng(1)
  masks = {
    name: jnp.asarray(rng.normal(size=(3, 6, 6, 1)), jnp.float32)
    for name in ('coarse', 'fine')
  }
  # -log(1/2); nothing for an open label; -log(1 - 3/4).
  malignant = jnp.asarray([0.0, 7.0, np.log(3.0)], jnp.float32)
  expected_class = np.asarray([np.log(2), 0, np.log(4)])
  for names in (('fine',), ('coarse', 'fine')):
    each, mask = _loss(
      [1, -1, 0],
      {**{name: masks[name] for name in names}, 'class': malignant},
      0.5,
    )
    expected = sum(
      losses.hybrid_loss(1 / (1 + jnp.exp(-masks[name])), mask)
      for name in names
    )
    np.testing.assert_allclose(each, expected + 0.5 * expected_class, rtol=1e-5)


def test_open_labels_teach_the_classifier_nothing():
  def total(malignant):
    logits = {'fine': jnp.zeros((2, 6, 6, 1)), 'class': malignant}
    return jnp.sum(_loss([-1, 0], logits, 1.0)[0])

  grad = jax.grad(total)(jnp.asarray([3.0, 0.0]))
  np.testing.assert_allclose(grad, [0, 0.5])


@pytest.fixture(name='joint_trainer')
def _joint_trainer(tmp_path):
  config = _config('shared')
  data = step_job.made_up_nodules(6)
  label = np.asarray([1, 0, -1, 1, 0, 0], np.int32)
  data = dataclasses.replace(data, label=label)
  (stage,) = stages.make_stages(config)
  return trainer_lib.Trainer(
    stage,
    config,
    nets=nets_lib.make_nets(config),
    trained={},
    train=data,
    validation=data,
    directory=tmp_path,
  ), data


def test_a_joint_stage_keeps_the_epoch_of_the_best_mean(joint_trainer):
  trainer, data = joint_trainer
  # Open labels stay, for their masks.
  assert len(trainer._train) == len(data) == 6
  probs = np.array(data.mask, np.float32)
  # Half a nodule: Jaccard 1/2 or so.
  probs[0, :, :32] = 0
  # One of the six pairs of a malignant and a benign nodule is the wrong way
  # round: AUC 5/6. The open one's would change it.
  malignancy = np.asarray([0.9, 0.1, 1.0, 0.3, 0.4, 0.2], np.float32)
  trainer._upstream_on_devices = {}
  trainer._predictor = lambda *_, **__: {'fine': probs, 'class': malignancy}
  found = trainer.validate({})
  jaccard = metrics.segmentation_metrics(probs[..., None], data.mask[..., None])
  jaccard = jaccard['jaccard'].mean()
  assert 0.9 < jaccard < 0.93
  assert found['jaccard'] == pytest.approx(jaccard)
  assert found['class_auc'] == pytest.approx(5 / 6)
  assert trainer.stage.select_by == 'jaccard_and_auc'
  assert found['jaccard_and_auc'] == pytest.approx((jaccard + 5 / 6) / 2)
  # Neither task's accuracy hides the other's.
  assert found['accuracy'] > 0.99
  assert found['class_accuracy'] == pytest.approx(4 / 5)


# The comparisons.


@pytest.mark.parametrize('variant', ('mtnet', 'demo', 'test'))
@pytest.mark.parametrize('name', ('table1', 'variants'))
def test_every_point_can_be_trained(name, variant):
  plan = sweep_plan.points(_baselines().get_config(f'{name},{variant}'))
  assert plan[0].name == 'mtnet' and not plan[0].overrides
  for point in plan:
    check_config.check_config(point.config)
    json.loads(point.config.to_json())


def _epochs(point):
  return {
    name: point.config[f'{name}_stage'].epochs
    for name in nets_lib.names(point.config)
  }


def _points(name, **changes):
  config = _baselines().get_config(name)
  for key, epochs in changes.items():
    config.base[f'{key}_stage'].epochs = epochs
  return {point.name: point for point in sweep_plan.points(config)}


def test_budgets_are_mtnet_s():
  points = _points('table1')
  assert _epochs(points['mtnet']) == {'coarse': 100, 'class': 100, 'fine': 100}
  for name in ('shared', 'feedback'):
    assert _epochs(points[name]) == {'joint': 200}
  for name in ('serial', 'single'):
    assert _epochs(points[name]) == {'fine': 200, 'class': 100}
  points = _points('variants')
  assert _epochs(points['cam']) == _epochs(points['mtnet'])
  assert set(_epochs(points['finetune']).values()) == {50}
  assert points['finetune'].config.coarse_mask == 'soft'


def test_budgets_follow_flags():
  points = _points('table1', coarse=7, fine=4)
  assert _epochs(points['shared']) == {'joint': 11}
  assert _epochs(points['serial']) == {'fine': 11, 'class': 100}
  points = _points('variants', coarse=7, **{'class': 6}, fine=4)
  assert _epochs(points['finetune']) == {
    'coarse': 5,
    'class': 4,
    'fine': 2,
    'joint': 2,
  }


def test_points_differ_in_nothing_but_the_strategy_and_its_budget():
  base = json.loads(_points('table1')['mtnet'].config.to_json())
  for point in _points('table1').values():
    tree = json.loads(point.config.to_json())
    differing = {key for key in tree if tree[key] != base[key]}
    assert differing <= {'strategy', 'joint_stage', 'fine_stage'}


def test_the_paper_s_rows_of_table_1_are_beside_our_points():
  published = paper.SWEEPS['table1']
  assert {name for name, _ in published} == set(_points('table1')) - {'single'}
  # Table 1: Yu et al. recall 80.5, AUC 90.7; Wu et al. no AUC.
  assert published['serial', 'fine']['recall'] == 0.805
  assert published['serial', 'class']['auc'] == 0.907
  assert published['shared', 'class']['auc'] is None


def test_an_unknown_comparison_names_the_known_ones():
  with pytest.raises(ValueError, match="'tabel1' is unknown.*table1, variants"):
    _baselines().get_config('tabel1')


# End to end.


@pytest.mark.slow
@pytest.mark.parametrize('strategy', _OTHERS)
def test_a_run_of_every_strategy(strategy, tmp_path, phantom_data_dir, capsys):
  config = _config(
    strategy,
    {
      'dataset': {'data_dir': str(phantom_data_dir)},
      'views_per_image': 1,
      **{f'{stage}_stage': {'epochs': 1} for stage in strategies.STAGES},
    },
  )
  workdir = tmp_path / 'run'
  run.run(config, workdir)
  results = json.loads((workdir / 'metrics.json').read_text())
  assert results['strategy'] == strategy
  summary = results['test']
  has_coarse = 'coarse' in strategies.stages_of(strategy)
  assert ('coarse' in summary['segmentation']) == has_coarse
  assert 0 <= summary['segmentation']['fine']['jaccard']['value'] <= 1
  assert 0 <= summary['classification']['auc']['value'] <= 1
  header = (workdir / 'records.csv').read_text().splitlines()[0].split(',')
  assert 'fine_dice' in header and 'malignancy_probability' in header
  assert ('coarse_dice' in header) == has_coarse
  for stage in strategies.stages_of(strategy):
    assert (workdir / 'checkpoints' / stage / 'best').exists()
  assert (workdir / 'report' / 'index.html').exists()
  finished_run.read(workdir)
  capsys.readouterr()
  run.run(config, workdir)
  assert 'is finished' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ('shared', 'feedback', 'finetune'))
def test_a_joint_step_moves_every_network(strategy, tmp_path):
  config = _config(strategy)
  # A warm-up begins at 0.
  config.joint_stage.schedule = 'constant'
  data = step_job.made_up_nodules(16)
  *_, stage = stages.make_stages(config)
  shapes = nets_lib.variable_shapes(config)
  rng = np.random.default_rng(0)
  trained = {
    name: jax.tree.map(
      lambda x: rng.normal(0.5, 0.2, x.shape).astype(np.float32) ** 2,
      shapes[name],
    )
    for name in stage.starts_from
  }
  trainer = trainer_lib.Trainer(
    stage,
    config,
    nets=nets_lib.make_nets(config),
    trained=trained,
    train=data,
    validation=data,
    directory=tmp_path,
  )
  state = trainer.init_state()
  before = jax.tree.map(np.asarray, state.params)
  after, values = trainer.steps(trainer.put_on_devices(state), 0)
  assert np.isfinite(np.asarray(values['loss'])).all()
  moved = jax.tree.map(
    lambda old, new: bool(np.any(old != np.asarray(new)[0])),
    before,
    after.params,
  )
  for name, tree in moved.items():
    assert any(jax.tree.leaves(tree)), name


def test_mtnet_is_what_it_was():
  """The classes and the order of before there were strategies."""
  nets = nets_lib.make_nets(_config('mtnet'))
  assert [type(nets[name]) for name in nets_lib.ORDER] == [
    mtnet.CoarseSegNet,
    mtnet.ClassNet,
    mtnet.FineSegNet,
  ]
  assert nets_lib.ORDER == ('coarse', 'class', 'fine')
