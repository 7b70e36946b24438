"""Fixtures: a bundle of the made run; two evaluated runs and their bundle."""

import made_run
import pytest

from mtnet_jax.inference import packing


@pytest.fixture(scope='module', name='packed')
def _packed(made_run_dir, tmp_path_factory):
  out = tmp_path_factory.mktemp('bundles') / 'packed'
  packing.write(made_run_dir, out)
  return out


@pytest.fixture(scope='module', name='runs')
def _runs(tmp_path_factory):
  """Returns two runs, of seeds 1 and 2, which were evaluated together."""
  folder = tmp_path_factory.mktemp('runs')
  runs = []
  for seed, name in ((1, 'one'), (2, 'two')):
    config = made_run.config_of()
    with config.unlocked():
      config.seed = seed
    runs.append(made_run.write(folder / name, config, seed=seed))
  for split in ('validation', 'test'):
    made_run.write_evaluation(runs, split)
  return runs


@pytest.fixture(scope='module', name='averaged')
def _averaged(runs, tmp_path_factory):
  out = tmp_path_factory.mktemp('bundles') / 'averaged'
  packing.write(runs, out, symmetries=True, calibrate=True, name='both')
  return out
