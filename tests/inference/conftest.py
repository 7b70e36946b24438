"""A bundle of the made run."""

import pytest

from mtnet_jax.inference import packing


@pytest.fixture(scope='module', name='packed')
def _packed(made_run_dir, tmp_path_factory):
  out = tmp_path_factory.mktemp('bundles') / 'packed'
  packing.write(made_run_dir, out)
  return out
