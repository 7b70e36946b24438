"""Which dataset a command uses, and which of its splits."""

from mtnet_jax.data import lidc
from mtnet_jax.data import nodules
from mtnet_jax.system import errors

_BANNER = '=' * 78


def choose_dataset(config, *, say=print):
  """The config with the dataset that this run uses.

  Args:
    config: of `configs/mtnet.py`.
    say: prints.

  Raises:
    errors.InputError: it is not on this disk, and no fallback is allowed.
  """
  dataset = config.dataset
  name, data_dir = dataset.name, dataset.data_dir
  if not (lidc.is_simulated(name, data_dir) or lidc.is_built(name, data_dir)):
    command = lidc.build_command(name, data_dir)
    if not dataset.fallback:
      raise errors.InputError(
        f'{name} was not built: build it with `{command}`, or set'
        ' --config.dataset.fallback=lidc_nodules/phantom.'
      )
    say(
      f'{_BANNER}\n{name} was not built. This run uses SIMULATED CT instead'
      f'\n({dataset.fallback}): its results say nothing about real nodules.\n'
      f'To use real CT, first build it with\n\n    {command}\n{_BANNER}'
    )
    name = dataset.fallback
  chosen = config.copy_and_resolve_references()
  with chosen.unlocked():
    chosen.dataset.name = name
  return chosen


def load_for_evaluation(name, split, *, data_dir, limit, rotate_folds):
  """The nodules that a run is evaluated on.

  Args:
    name, data_dir, limit, rotate_folds: as in `lidc.load_split`.
    split: the split; None for the test split, or for all splits where the
      dataset has no test split.

  Returns:
    The name of the split, 'all' for several, and `nodules.Nodules`.
  """
  present = lidc.built_splits(name, data_dir)
  if split is None and 'test' in present:
    split = 'test'
  wanted = present if split is None else [split]
  parts = [
    lidc.load_split(
      name, part, data_dir=data_dir, limit=limit, rotate_folds=rotate_folds
    )
    for part in wanted
  ]
  label = wanted[0] if len(wanted) == 1 else 'all'
  return label, nodules.concatenate(parts)
