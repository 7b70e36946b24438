"""Runs that answer together: which can, and which patients they have seen."""

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
  """Reads runs whose answers can be averaged.

  Raises:
    errors.InputError: one is not finished, is given twice, or is not of the
      same method and dataset as the first.
  """
  runs = [
    Run(path, workdir.read_config(path), workdir.read_metrics(path))
    for path in paths
  ]
  places = [pathlib.Path(path).resolve() for path in paths]
  for number, run in enumerate(runs):
    if places[number] in places[:number]:
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
  """What metrics.json says of them."""
  return [
    {
      'workdir': run.path,
      'seed': run.config.seed,
      'rotate_folds': run.config.dataset.rotate_folds,
    }
    for run in runs
  ]


def rotations(runs):
  """By how many folds the splits of each are moved on."""
  return [run.config.dataset.rotate_folds for run in runs]


def caution(runs, count):
  """That metrics are too good, and why.

  Args:
    runs: of `read`.
    count: how many nodules are of patients that any of them has seen.
  """
  kept = [lidc.folds('test', turn)[0] for turn in rotations(runs)]
  who = 'the run was' if len(runs) == 1 else 'at least one of the runs was'
  folds = f'all folds but {kept[0]}'
  if len(set(kept)) > 1:
    folds = f'they keep folds {", ".join(map(str, kept))}: none in common'
  return (
    f'CAUTION: {count} of them are of patients whose nodules {who} trained on'
    f' or chosen by\n({folds}), at least with their outlines: the numbers'
    ' below flatter it.'
  )


def listen(runs, nodules, *, symmetries, progress):
  """Lets runs answer about a split, one after the other.

  Args:
    runs: of `members.read`.
    nodules: `nodules.Nodules`.
    symmetries: whether each looks at every patch in all eight ways in which it
      can lie.
    progress: of a description makes what wraps the batches, as
      `command_line.progress_bar`.

  Returns:
    Records of each run by itself, of one look at the patches as they are; and
    all answers as an `ensemble.Averaged`.
  """
  singles = []
  total = len(runs) * (ensemble.NUM_SYMMETRIES if symmetries else 1)
  titles = (
    f'evaluating, {number} of {total}' for number in range(1, total + 1)
  )

  def answers():
    for run in runs:
      variables = workdir.load_variables(run.path, nets.names(run.config))

      def look(hu, run=run, variables=variables):
        return outputs.predict(
          run.config,
          variables,
          dataclasses.replace(nodules, image=hu),
          progress=progress(next(titles)),
        )

      if symmetries:
        looks = ensemble.symmetric(look, nodules.image)
      else:
        looks = iter([look(nodules.image)])
      plain = next(looks)
      singles.append(records.make_records(nodules, plain, readers=False))
      yield plain
      yield from looks

  averaged = ensemble.average(answers())
  return singles, averaged
