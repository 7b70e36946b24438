"""Fixtures for tests of commands: a CT of balls, and a model that reads HU."""

import ct_files
import predict_job
import pytest

from mtnet_jax.inference import bundles
from mtnet_jax.system import command_line


@pytest.fixture(autouse=True)
def _own_process(monkeypatch):
  """Keeps commands from changing settings of the process of all tests."""
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
