"""Loads the files in configs/, as a command does."""

import importlib.util

import main_job


def load(name):
  """Returns the module `configs/NAME.py`."""
  spec = importlib.util.spec_from_file_location(
    f'{name}_config', main_job.ROOT / 'configs' / f'{name}.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


CONFIGS = load('mtnet')
ABLATIONS = load('ablations')
BASELINES = load('baselines')
