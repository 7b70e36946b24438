"""A series of balls, and a model that thresholds HU."""

import ct_files
import predict_job
import pytest

from mtnet_jax.inference import bundles


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('ct')
  ct_files.write(directory, ct_files.volume(*predict_job.BALLS.values()))
  return directory


@pytest.fixture
def model(monkeypatch):
  model = ct_files.Model()
  monkeypatch.setattr(bundles, 'load', lambda path: model)
  return model
