"""The lowest versions and the locked ones are those of setup.cfg."""

import configparser

import main_job
from packaging import requirements


def _required():
  """The requirements of setup.cfg, without those of extras but `test`."""
  config = configparser.ConfigParser()
  config.read(main_job.ROOT / 'setup.cfg')
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
  """Name -> version of a file of NAME==VERSION."""
  return dict(
    line.split('==')
    for line in (main_job.ROOT / path).read_text().splitlines()
    if not line.startswith('#')
  )


def test_the_lowest_versions_are_the_lower_bounds():
  lowest = {
    name: bound.version
    for name, specifier in _required().items()
    for bound in specifier
    if bound.operator in ('>=', '==')
  }
  assert _pinned('.ci/lowest.txt') == lowest
  assert lowest.keys() == _required().keys()


def test_the_lock_file_is_within_the_bounds():
  locked = {
    name.lower().replace('_', '-'): version
    for name, version in _pinned('requirements.lock').items()
  }
  for name, specifier in _required().items():
    assert locked[name.lower().replace('_', '-')] in specifier, name
