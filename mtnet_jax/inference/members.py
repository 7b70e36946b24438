"""Runs whose outputs are averaged, and the patients that they have seen."""

import dataclasses
import pathlib
from typing import NamedTuple

import ml_collections
import numpy as np

from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import outputs
from mtnet_jax.evaluation import records
from mtnet_jax.evaluation import scores
from mtnet_jax.inference import ensemble
from mtnet_jax.inference import seen_by
from mtnet_jax.models import nets
from mtnet_jax.models import predictor
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors


class Run(NamedTuple):
  """A finished run.

  Attributes:
    path: where it is.
    config: config.json.
    results: metrics.json.
    seen: what it was trained on and chosen by.
  """

  path: str
  config: ml_collections.ConfigDict
  results: dict
  seen: seen_lib.Seen


def read(paths):
  """Reads runs whose outputs can be averaged.

  Raises:
    errors.InputError: one is not finished, is damaged, is given twice, or is
      not of the same method and dataset as the first.
  """
  runs = []
  for path in paths:
    with finished_run.damage(path):
      runs.append(_read(path))
  folders = [pathlib.Path(path).resolve() for path in paths]
  for number, run in enumerate(runs):
    if folders[number] in folders[:number]:
      raise errors.InputError(f'{run.path} is given twice: give it once.')
    _check_alike(run, runs[0])
  return runs


def _read(path):
  config, results = workdir.read_config(path), workdir.read_metrics(path)
  _check_values(config, results)
  return Run(path, config, results, seen_by.run(path, config))


def _check_values(config, results):
  """Raises where what an evaluation takes from a run is not as expected.

  Before it loads nodules and networks, which may take long. What `read_config`
  checks is not asked again.
  """
  for key in ('name', 'data_dir'):
    config.dataset[key]  # Raises where it is missing.
  if not isinstance(results['dataset'], str):
    raise TypeError('dataset of metrics.json is no text')
  nets.names(config)
  nets.make_nets(config)
  scores.malignancy_scores([], results['diameter_only_model'])


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
      'id': workdir.run_id(run.path),
      'seed': run.config.seed,
      'rotate_folds': run.config.dataset.rotate_folds,
    }
    for run in runs
  ]


def used_for(runs, patient_ids):
  """What any of the runs used the patients of nodules for.

  Args:
    runs: of `read`.
    patient_ids: (N,).

  Returns:
    (N,) of 'train', 'validation', or '' of patients that none has seen.
  """
  seen = seen_lib.union([run.seen for run in runs])
  return seen_lib.used_for(seen, patient_ids)


def _counts(used):
  """How many nodules are of patients trained on, and chosen by."""
  return [int(np.sum(used == use)) for use in seen_lib.USES]


def seen_counts(runs, used):
  """What metrics.json says of nodules whose patients were seen.

  Args:
    runs: of `read`.
    used: of `used_for`.
  """
  trained, chosen = _counts(used)
  return {
    'compared_by': 'fold' if any(run.seen.by_fold for run in runs) else 'id',
    'nodules_of_patients_trained_on': trained,
    'nodules_of_patients_chosen_by': chosen,
  }


def caution(runs, used):
  """Says that metrics are too optimistic, and why; '' where they are not.

  Args:
    runs: of `read`.
    used: of `used_for`.
  """
  trained, chosen = _counts(used)
  if not trained + chosen:
    return ''
  used_by = 'of the run' if len(runs) == 1 else 'of at least one of the runs'
  return (
    f'CAUTION: {trained + chosen} of these {len(used)} nodules belong to'
    f' patients used in training ({trained}) or model selection ({chosen})\n'
    f'{used_by}; the metrics are too optimistic.'
  )


def note_by_fold(runs):
  """Says which runs have no list of what they saw; '' where all have."""
  lacking = ', '.join(run.path for run in runs if run.seen.by_fold)
  if not lacking:
    return ''
  return (
    f'{lacking} has no {seen_lib.FILE}: what it has seen is told by fold, all'
    ' of LIDC-IDRI but\nits test fold. Its training command, given again,'
    ' writes the file.'
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
        wrapped = progress(next(titles))
        with finished_run.damage(run.path):
          return outputs.predict(
            run.config,
            variables,
            dataclasses.replace(nodules, image=hu),
            progress=wrapped,
          )

      views = ensemble.views(predict_fn, nodules.image, symmetries=symmetries)
      plain = next(views)
      singles.append(records.make_records(nodules, plain, readers=False))
      yield plain
      yield from views

  averaged = ensemble.average(all_outputs())
  return singles, averaged
