"""Finds what runs and models have seen, from their lists or their folds."""

import os
import pathlib
from typing import Any

import ml_collections

from mtnet_jax.data import lidc
from mtnet_jax.storage import seen as seen_lib


def run(
  path: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> seen_lib.Seen:
  """Returns what a run has seen.

  Args:
    path: the run directory.
    config: its config.

  Raises:
    errors.InputError: its seen.csv is damaged.
  """
  return or_by_fold(seen_lib.read_if_there(pathlib.Path(path)), config)


def model(trained: Any) -> seen_lib.Seen:
  """Returns what a `model.Model`, or any member of an ensemble, has seen."""
  members = getattr(trained, 'models', None)
  if members is None:
    return or_by_fold(trained.seen, trained.config)
  return seen_lib.union([model(member) for member in members])


def or_by_fold(
  seen: seen_lib.Seen | None, config: ml_collections.ConfigDict
) -> seen_lib.Seen:
  """Returns `seen`; if it is None, all nodules of the config's seen folds."""
  if seen is not None:
    return seen
  dataset = config.dataset
  rows = lidc.seen_by_fold(dataset.name, dataset.rotate_folds)
  return seen_lib.Seen(frozenset(rows), by_fold=True)
