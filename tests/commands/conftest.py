"""What tests of commands share: a series of balls, and a model of HU."""

import ct_files
import predict_job
import pytest

from mtnet_jax.inference import bundles
from mtnet_jax.system import command_line


@pytest.fixture(autouse=True)
def _own_process(monkeypatch):
  """Commands called here must not set up the process of all other tests."""
  monkeypatch.setattr(command_line, 'prepare_evaluation', lambda: None)


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
