"""Lowest and locked versions of requirements agree with setup.cfg."""

import configparser
import re

import main_job
from packaging import requirements
import pytest


def _setup():
  config = configparser.ConfigParser()
  config.read(main_job.ROOT / 'setup.cfg')
  return config


def _required():
  """Name -> specifier of setup.cfg, of the package and its extra `test`."""
  config = _setup()
  lines = (
    config['options']['install_requires']
    + config['options.extras_require']['test']
  ).splitlines()
  return {
    requirement.name: requirement.specifier
    for requirement in map(
      requirements.Requirement,
      (line for line in lines if line and not line.startswith('#')),
    )
  }


def _pinned(path):
  """Name -> version of a file with lines NAME==VERSION."""
  return dict(
    line.split('==')
    for line in (main_job.ROOT / path).read_text().splitlines()
    if not line.startswith('#')
  )


def test_lowest_versions_are_the_lower_bounds():
  lowest = {
    name: bound.version
    for name, specifier in _required().items()
    for bound in specifier
    if bound.operator in ('>=', '==')
  }
  assert _pinned('.ci/lowest.txt') == lowest
  assert lowest.keys() == _required().keys()


def _pythons():
  """Returns '11' for Python 3.11, and so on, for each Python in setup.cfg."""
  classifiers = _setup()['metadata']['classifiers']
  return re.findall(r'Python :: 3\.(\d+)$', classifiers, re.MULTILINE)


def test_every_python_has_its_lock_file():
  found = (main_job.ROOT / 'requirements').iterdir()
  assert sorted(path.name for path in found) == [
    f'py3{minor}.lock' for minor in _pythons()
  ]


@pytest.mark.parametrize('minor', _pythons())
def test_locked_versions_are_within_the_bounds(minor):
  path = f'requirements/py3{minor}.lock'
  text = (main_job.ROOT / path).read_text()
  assert f'pip install -r {path} ' in text and f'(Python 3.{minor},' in text
  locked = {
    name.lower().replace('_', '-'): version
    for name, version in _pinned(path).items()
  }
  for name, specifier in _required().items():
    assert locked[name.lower().replace('_', '-')] in specifier, name
  # JAX 0.11 requires Python 3.12; pip installs it where it can.
  assert locked['jax'].startswith('0.10.' if minor == '11' else '0.11.')
