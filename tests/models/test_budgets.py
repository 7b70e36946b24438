"""The training budgets of strategies, and the runs that compare them."""

import json

import project_configs
import pytest

from mtnet_jax.experiments import sweep_plan
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.reports import paper
from mtnet_jax.training import check_config


@pytest.mark.parametrize('variant', ('mtnet', 'demo', 'test'))
@pytest.mark.parametrize('name', ('table1', 'variants'))
def test_every_point_can_be_trained(name, variant):
  plan = sweep_plan.points(
    project_configs.BASELINES.get_config(f'{name},{variant}')
  )
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
  config = project_configs.BASELINES.get_config(name)
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


def test_points_differ_only_in_the_strategy_and_its_budget():
  base = json.loads(_points('table1')['mtnet'].config.to_json())
  for point in _points('table1').values():
    tree = json.loads(point.config.to_json())
    differing = {key for key in tree if tree[key] != base[key]}
    assert differing <= {'strategy', 'joint_stage', 'fine_stage'}


def test_table_1_of_the_paper_has_a_row_for_each_of_our_points():
  published = paper.SWEEPS['table1']
  assert {name for name, _ in published} == set(_points('table1')) - {'single'}
  # Table 1: Yu et al. recall 80.5, AUC 90.7; Wu et al. no AUC.
  assert published['serial', 'fine']['recall'] == 0.805
  assert published['serial', 'class']['auc'] == 0.907
  assert published['shared', 'class']['auc'] is None


def test_an_unknown_comparison_names_the_known_ones():
  with pytest.raises(
    ValueError, match="'tabel1' is unknown.*table1, tables, variants"
  ):
    project_configs.BASELINES.get_config('tabel1')
