"""Commands that fill the rows of a report that other runs belong in."""

import shlex
from typing import NamedTuple

# Variants of the sweep -> fields of their dataset, as in configs/mtnet.py.
_PAPER = {'name': 'lidc_nodules/paper', 'limit': 0}
_PHANTOM = {'name': 'lidc_nodules/phantom', 'limit': 0}
VARIANTS = {
  'mtnet': _PAPER,
  'small': _PAPER,
  'demo': _PHANTOM,
  'test': {**_PHANTOM, 'limit': 32},
}


class Commands(NamedTuple):
  """What to type, one after the other.

  Attributes:
    sweep: trains the other runs, of this run's variant and dataset.
    report: writes this run's report again, beside them.
  """

  sweep: str
  report: str

  def __str__(self):
    return f'{self.sweep} && {self.report}'


def of_run(config, workdir):
  """The commands for the report of a run; None where its variant has no sweep.

  Args:
    config: of the run.
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


def report(workdir, folder):
  """The command that writes a run's report beside what is in a folder."""
  return _command('report', f'--workdir={workdir}', f'--compare={folder}')


def _command(name, *flags):
  return shlex.join(['python', '-m', f'mtnet_jax.{name}', *flags])
