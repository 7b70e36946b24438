"""Chooses the dataset of a command, and its split."""

from collections.abc import Callable

import ml_collections

from mtnet_jax.data import lidc
from mtnet_jax.data import nodules
from mtnet_jax.system import errors

_BANNER = '=' * 78


def choose_dataset(
  config: ml_collections.ConfigDict, *, say: Callable[[str], object] = print
) -> ml_collections.ConfigDict:
  """Returns the config with the dataset that the run uses.

  This is `dataset.name`, or `dataset.fallback` where the former needs real CT
  and was not built.

  Args:
    config: of `configs/mtnet.py`.
    say: prints a line.

  Raises:
    errors.InputError: the dataset was not built, and there is no fallback.
  """
  dataset = config.dataset
  name, data_dir = dataset.name, dataset.data_dir
  if not (lidc.is_simulated(name, data_dir) or lidc.is_built(name, data_dir)):
    command = lidc.build_command(name, data_dir)
    if not dataset.fallback:
      raise errors.InputError(
        f'{name} was not built: build it with `{command}`, or set'
        ' --config.dataset.fallback=lidc_nodules/phantom for simulated CT.'
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


def load_for_evaluation(
  name: str,
  split: str | None,
  *,
  data_dir: str,
  limit: int,
  rotate_folds: int,
) -> tuple[str, nodules.Nodules]:
  """Loads the nodules that a run is evaluated on.

  Args:
    name: as in `lidc.load_split`.
    split: the split; None for the test split, or for all splits where the
      dataset has no test split.
    data_dir: as in `lidc.load_split`.
    limit: as in `lidc.load_split`, for each split.
    rotate_folds: as in `lidc.load_split`.

  Returns:
    The name of the split, or 'all' for several, and its nodules.
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
