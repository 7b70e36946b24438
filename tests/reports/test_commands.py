"""The commands that a report shows belong to its run."""

import shlex

import made_run
import project_configs
import pytest

from mtnet_jax.experiments import sweep_plan
from mtnet_jax.reports import commands


@pytest.mark.parametrize('variant', project_configs.CONFIGS.VARIANTS)
def test_an_unchanged_variant_needs_no_flags(variant):
  config = project_configs.CONFIGS.get_config(variant)
  name = '' if variant == 'mtnet' else variant
  sweep, report = commands.for_run(config, f'runs/{variant}')
  assert sweep == (
    'python -m mtnet_jax.sweep --config=configs/baselines.py:tables'
    + (name and f',{name}')
  )
  assert report == (
    f'python -m mtnet_jax.report --workdir=runs/{variant}'
    f' --compare=runs/tables{name and "-" + name}'
  )


def test_every_variant_has_commands_and_others_have_none():
  assert tuple(commands.VARIANTS) == project_configs.CONFIGS.VARIANTS
  config = made_run.config_of()
  with config.unlocked():
    config.variant = 'lidc_small_nodules'
  assert commands.for_run(config, 'runs/x') is None


def test_settings_that_change_the_nodules_are_flags_of_the_sweep():
  """Otherwise its runs could not be compared with this one."""
  config = project_configs.CONFIGS.get_config('demo')
  with config.unlocked():
    config.seed = 3
    config.dataset.name = 'lidc_nodules/all?readers=3-'
    config.dataset.data_dir = '/data of mine'
    config.dataset.rotate_folds = 2
    config.dataset.limit = 50
  result = commands.for_run(config, 'my runs/a')
  _, _, module, file, *flags = shlex.split(result.sweep)
  assert module == 'mtnet_jax.sweep'
  sweep = project_configs.BASELINES.get_config(file.partition(':')[2])
  for flag in flags:
    key, value = flag.removeprefix('--config.base.').split('=', 1)
    group, _, field = key.rpartition('.')
    target = sweep.base[group] if group else sweep.base
    setattr(target, field, type(target[field])(value))
  plan = {point.name: point for point in sweep_plan.points(sweep)}
  assert plan['shared'].config.dataset == config.dataset
  assert plan['shared'].config.seed == 3
  assert shlex.split(str(result))[-2:] == [
    '--workdir=my runs/a',
    '--compare=runs/tables-demo',
  ]
