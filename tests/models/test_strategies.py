"""Strategies: their stages, what these start from, and whole runs."""

import functools
import json

import jax
import numpy as np
import pytest
import step_job

from mtnet_jax.evaluation import finished_run
from mtnet_jax.experiments import run
from mtnet_jax.models import baselines
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.system import errors
from mtnet_jax.training import check_config
from mtnet_jax.training import from_public
from mtnet_jax.training import stages
from mtnet_jax.training import start
from mtnet_jax.training import trainer as trainer_lib

_OTHERS = tuple(name for name in strategies.STRATEGIES if name != 'mtnet')


# Stages.


@pytest.mark.parametrize('strategy', strategies.STRATEGIES)
def test_stages_only_use_earlier_stages(strategy):
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
  config = step_job.config_of_strategy(strategy)
  check_config.check_config(config)
  made = stages.make_stages(config)
  names = tuple(stage.name for stage in made)
  assert names == nets_lib.names(config) == strategies.stages_of(strategy)
  assert set(nets_lib.make_nets(config)) == set(names)
  assert set(nets_lib.variable_shapes(config)) == set(names)
  for stage in made:
    assert stage.epochs == config[f'{stage.name}_stage'].epochs


def test_no_two_stages_share_a_seed():
  # Runs from before there were strategies have the same seeds.
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
  nets = nets_lib.make_nets(step_job.config_of_strategy('single'))
  assert isinstance(nets['fine'], baselines.UNet)
  net = nets['class']
  assert net.exit_pool and net.tail_dilation == 1 and not net.use_coarse_mask


def test_only_feedback_reads_segmentation_features():
  assert not nets_lib.make_nets(step_job.config_of_strategy('shared'))[
    'joint'
  ].use_segmentation
  assert nets_lib.make_nets(step_job.config_of_strategy('feedback'))[
    'joint'
  ].use_segmentation


@pytest.mark.parametrize(
  'changes, message',
  (
    ({'strategy': 'cereal'}, "strategy='cereal' is none of mtnet, shared"),
    ({'strategy': 'finetune', 'coarse_mask': 'hard'}, 'coarse_mask=soft'),
    ({'strategy': 'shared', 'stages': ('coarse',)}, "strategy 'shared': joint"),
    ({'stages': ('fine',)}, "'fine' of strategy 'mtnet' needs coarse"),
    ({'strategy': 'cam', 'stages': ('coarse', 'fine')}, 'needs class'),
    (
      {'stages': ('coarse', 'gross')},
      'must be some of coarse, class, fine, joint',
    ),
    ({'class_weight': -1.0}, 'class_weight=-1.0 must be at least 0'),
    (
      {'strategy': 'shared', 'joint_stage': {'epochs': -1}},
      'joint_stage.epochs=-1 must be at least 0',
    ),
    # A joint stage without epochs would leave no trained model.
    (
      {'strategy': 'shared', 'joint_stage': {'epochs': 0}},
      'joint_stage.epochs=0 .*or give 1 epoch or more',
    ),
  ),
)
def test_values_that_cannot_be_used_are_refused(changes, message):
  with pytest.raises(errors.InputError, match=message):
    check_config.check_config(step_job.config_of_strategy('mtnet', changes))


# Initial variables.


def _values(tree, value):
  return jax.tree.map(lambda x: np.full(x.shape, value, x.dtype), tree)


def test_finetuning_starts_where_the_three_networks_ended():
  config = step_job.config_of_strategy('finetune')
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
  # `take_over` checks every name and shape.
  jax.eval_shape(
    functools.partial(
      start.init_variables, stage, 0, size=32, newly_initialised=()
    ),
    started=started,
  )


def test_the_fine_layer_of_cam_reads_one_map_more():
  fine = {
    strategy: nets_lib.variable_shapes(step_job.config_of_strategy(strategy))[
      'fine'
    ]['params']
    for strategy in ('mtnet', 'cam')
  }
  kernels = {
    strategy: tree['fine_layer']['conv']['kernel'].shape
    for strategy, tree in fine.items()
  }
  features = step_job.config_of_strategy('cam').seg_net.aspp_features
  assert kernels['mtnet'] == (1, 1, features + 1, features)
  assert kernels['cam'] == (1, 1, features + 2, features)


def test_public_weights_of_a_shared_net_are_those_of_its_coarse_net():
  config = step_job.config_of_strategy('shared')
  net = nets_lib.make_nets(config)['joint']
  part = from_public.segmentation_part(net)
  assert (
    part == nets_lib.make_nets(step_job.config_of_strategy('mtnet'))['coarse']
  )
  coarse = _values(
    nets_lib.variable_shapes(step_job.config_of_strategy('mtnet'))['coarse'], 1
  )
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
def test_weights_that_no_network_uses_are_refused(tmp_path, strategy, task):
  config = step_job.config_of_strategy(
    strategy, {'pretrained': {task: 'weights.pth'}}
  )
  with pytest.raises(errors.InputError, match=f'{task}: strategy .{strategy}'):
    from_public.fill_in(config, tmp_path)


# Whole runs.


@pytest.mark.slow
@pytest.mark.parametrize(
  'strategy',
  # Before every change, one strategy with a joint stage and one with separate
  # networks; each of the others compiles for a minute.
  [
    pytest.param(
      x, marks=[] if x in ('feedback', 'single') else [pytest.mark.long]
    )
    for x in _OTHERS
  ],
)
def test_a_run_of_every_strategy(strategy, tmp_path, phantom_data_dir, capsys):
  config = step_job.config_of_strategy(
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
@pytest.mark.parametrize(
  'strategy',
  (
    'shared',
    'feedback',
    # It has every network.
    pytest.param('finetune', marks=pytest.mark.long),
  ),
)
def test_a_joint_step_moves_every_network(strategy, tmp_path):
  config = step_job.config_of_strategy(strategy)
  # With a warm-up, the first step would have a learning rate of 0.
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


def test_mtnet_is_unchanged():
  """Classes and order are those of runs from before there were strategies."""
  nets = nets_lib.make_nets(step_job.config_of_strategy('mtnet'))
  assert [type(nets[name]) for name in nets_lib.ORDER] == [
    mtnet.CoarseSegNet,
    mtnet.ClassNet,
    mtnet.FineSegNet,
  ]
  assert nets_lib.ORDER == ('coarse', 'class', 'fine')
