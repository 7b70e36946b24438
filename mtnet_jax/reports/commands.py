"""Commands that fill the rows of a report that need other runs."""

import os
import shlex
from typing import NamedTuple

import ml_collections

# Variant of the sweep -> dataset fields of that variant in configs/mtnet.py.
_PAPER = {'name': 'lidc_nodules/paper', 'limit': 0}
_PHANTOM = {'name': 'lidc_nodules/phantom', 'limit': 0}
VARIANTS = {
  'mtnet': _PAPER,
  'small': _PAPER,
  'demo': _PHANTOM,
  'test': {**_PHANTOM, 'limit': 32},
}


class Commands(NamedTuple):
  """Shell commands to run one after the other.

  Attributes:
    sweep: trains the other runs, with this run's variant and dataset.
    report: rewrites this run's report and compares it with the other runs.
  """

  sweep: str
  report: str

  def __str__(self) -> str:
    return f'{self.sweep} && {self.report}'


def for_run(
  config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> Commands | None:
  """Returns the commands for a run's report, or None if no sweep fits.

  Args:
    config: the run's config.
    workdir: the run directory.
  """
  usual = VARIANTS.get(config.variant)
  if usual is None:
    return None
  suffix = '' if config.variant == 'mtnet' else config.variant
  defaults = {'data_dir': '', 'rotate_folds': 0, **usual}
  overrides = {
    f'dataset.{key}': config.dataset.get(key, default)
    for key, default in defaults.items()
    if config.dataset.get(key, default) != default
  }
  if config.seed:
    overrides['seed'] = config.seed
  flags = [f'--config.base.{key}={value}' for key, value in overrides.items()]
  file = ','.join(filter(None, ('configs/baselines.py:tables', suffix)))
  folder = '-'.join(filter(None, ('runs/tables', suffix)))
  return Commands(
    _command('sweep', f'--config={file}', *flags),
    report(workdir, folder),
  )


def report(
  workdir: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> str:
  """Returns the command that compares a run with the runs in a folder."""
  return _command('report', f'--workdir={workdir}', f'--compare={folder}')


def _command(name, *flags):
  return shlex.join(['python', '-m', f'mtnet_jax.{name}', *flags])
