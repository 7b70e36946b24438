"""Runs whose outputs are averaged, and the patients that they have seen."""

import dataclasses
import pathlib
from typing import NamedTuple

import ml_collections

from mtnet_jax.data import lidc
from mtnet_jax.evaluation import outputs
from mtnet_jax.evaluation import records
from mtnet_jax.inference import ensemble
from mtnet_jax.models import nets
from mtnet_jax.models import predictor
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors


class Run(NamedTuple):
  """A finished run.

  Attributes:
    path: where it is.
    config: config.json.
    results: metrics.json.
  """

  path: str
  config: ml_collections.ConfigDict
  results: dict


def read(paths):
  """Reads runs whose outputs can be averaged.

  Raises:
    errors.InputError: one is not finished, is given twice, or is not of the
      same method and dataset as the first.
  """
  runs = [
    Run(path, workdir.read_config(path), workdir.read_metrics(path))
    for path in paths
  ]
  folders = [pathlib.Path(path).resolve() for path in paths]
  for number, run in enumerate(runs):
    if folders[number] in folders[:number]:
      raise errors.InputError(f'{run.path} is given twice: give it once.')
    _check_alike(run, runs[0])
  return runs


def _check_alike(run, first):
  expected = _method(first.config)
  for what, found in _method(run.config).items():
    if found != expected[what]:
      raise errors.InputError(
        f'{run.path} cannot be averaged with {first.path}: its {what} is'
        f' {found}, not {expected[what]}. Give runs that differ in seed or'
        ' fold.'
      )


def _method(config):
  """What runs that are averaged have in common."""
  return {
    'dataset': config.dataset.name,
    'stages': nets.names(config),
    **predictor.options(config),
  }


def described(runs):
  """Their description in metrics.json."""
  return [
    {
      'workdir': run.path,
      'seed': run.config.seed,
      'rotate_folds': run.config.dataset.rotate_folds,
    }
    for run in runs
  ]


def rotations(runs):
  """By how many folds the splits of each run are rotated."""
  return [run.config.dataset.rotate_folds for run in runs]


def caution(runs, count):
  """Says that metrics are too optimistic, and why.

  Args:
    runs: of `read`.
    count: how many nodules belong to patients that any of the runs has seen.
  """
  test_folds = [lidc.folds('test', turn)[0] for turn in rotations(runs)]
  used_by = 'of the run' if len(runs) == 1 else 'of at least one of the runs'
  folds = f'all folds except {test_folds[0]}'
  if len(set(test_folds)) > 1:
    listed = ', '.join(map(str, test_folds))
    folds = f'the test folds are {listed}: none in common'
  return (
    f'CAUTION: {count} of these nodules belong to patients used in training or'
    f' model selection\n{used_by} ({folds}); the metrics are too optimistic.'
  )


def predict(runs, nodules, *, symmetries, progress):
  """Runs the networks of each run over a split, one after the other.

  Args:
    runs: of `members.read`.
    nodules: `nodules.Nodules`.
    symmetries: whether each sees every patch in all eight rotations and
      reflections.
    progress: makes the function that wraps the batches, from a description, as
      `command_line.progress_bar` does.

  Returns:
    The records of each run by itself, for the patches as they are; and all
    outputs as an `ensemble.Averaged`.
  """
  singles = []
  total = len(runs) * (ensemble.NUM_SYMMETRIES if symmetries else 1)
  titles = (
    f'evaluating, {number} of {total}' for number in range(1, total + 1)
  )

  def all_outputs():
    for run in runs:
      variables = workdir.load_variables(run.path, nets.names(run.config))

      def predict_fn(hu, run=run, variables=variables):
        return outputs.predict(
          run.config,
          variables,
          dataclasses.replace(nodules, image=hu),
          progress=progress(next(titles)),
        )

      views = ensemble.views(predict_fn, nodules.image, symmetries=symmetries)
      plain = next(views)
      singles.append(records.make_records(nodules, plain, readers=False))
      yield plain
      yield from views

  averaged = ensemble.average(all_outputs())
  return singles, averaged
