"""What runs and models have seen: what their lists say, or by their folds."""

import pathlib

from mtnet_jax.data import lidc
from mtnet_jax.storage import seen as seen_lib


def run(path, config):
  """What a run has seen.

  Args:
    path: the run directory.
    config: its config.

  Returns:
    `seen.Seen`.

  Raises:
    errors.InputError: its list is damaged.
  """
  return or_by_fold(seen_lib.read_if_there(pathlib.Path(path)), config)


def model(of):
  """What a `model.Model`, or any model of an ensemble, has seen."""
  members = getattr(of, 'models', None)
  if members is None:
    return or_by_fold(of.seen, of.config)
  return seen_lib.union([model(member) for member in members])


def or_by_fold(seen, config):
  """A list, or where there is none what the config's folds say."""
  if seen is not None:
    return seen
  dataset = config.dataset
  rows = lidc.seen_by_fold(dataset.name, dataset.rotate_folds)
  return seen_lib.Seen(frozenset(rows), by_fold=True)
