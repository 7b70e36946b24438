"""Finished runs evaluated together, and the patients that they have seen."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any
from typing import NamedTuple

import ml_collections
import numpy as np

from mtnet_jax.data import nodules as nodules_lib
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
    path: the run directory.
    config: config.json.
    results: metrics.json.
    seen: nodules and patients used in training and model selection.
  """

  path: str
  config: ml_collections.ConfigDict
  results: dict[str, Any]
  seen: seen_lib.Seen


def read(paths: Sequence[str]) -> list[Run]:
  """Reads runs whose outputs can be averaged.

  Args:
    paths: run directories.

  Raises:
    errors.InputError: a run is not finished, is damaged, is listed twice, or
      differs from the first in its method or dataset.
  """
  runs = []
  for path in paths:
    with finished_run.damage(path):
      runs.append(_read(path))
  folders = [pathlib.Path(path).resolve() for path in paths]
  for i, run in enumerate(runs):
    if folders[i] in folders[:i]:
      raise errors.InputError(f'{run.path} is listed twice: list it once.')
    _check_alike(run, runs[0])
  return runs


def _read(path: str) -> Run:
  config, results = workdir.read_config(path), workdir.read_metrics(path)
  _check_values(config, results)
  return Run(path, config, results, seen_by.run(path, config))


def _check_values(config, results):
  """Raises an exception if an evaluation could not use a run's values.

  This comes before nodules and networks are loaded, which may take long. It
  omits what `workdir.read_config` has checked.
  """
  for key in ('name', 'data_dir'):
    config.dataset[key]  # Raises if it is missing.
  if not isinstance(results['dataset'], str):
    raise TypeError('dataset of metrics.json is not a string')
  nets.names(config)
  nets.make_nets(config)
  scores.malignancy_scores([], results['diameter_only_model'])


def _check_alike(run, first):
  expected = _method(first.config)
  for what, found in _method(run.config).items():
    if found != expected[what]:
      raise errors.InputError(
        f'{run.path} cannot be averaged with {first.path}: its {what} is'
        f' {found}, not {expected[what]}. List runs that differ only in seed or'
        ' fold.'
      )


def _method(config):
  """Returns the settings in which averaged runs must agree."""
  return {
    'dataset': config.dataset.name,
    'stages': nets.names(config),
    **predictor.options(config),
  }


def described(runs: Sequence[Run]) -> list[dict[str, Any]]:
  """Describes runs for `members` of metrics.json."""
  return [
    {
      'workdir': run.path,
      'id': workdir.run_id(run.path),
      'seed': run.config.seed,
      'rotate_folds': run.config.dataset.rotate_folds,
    }
    for run in runs
  ]


def used_for(runs: Sequence[Run], patient_ids: Iterable[object]) -> np.ndarray:
  """Returns what any of the runs used the patients of nodules for.

  Args:
    runs: from `read`.
    patient_ids: (N,), the patient of each nodule.

  Returns:
    (N,) 'train', 'validation', or '' for a patient that no run has seen.
  """
  seen = seen_lib.union([run.seen for run in runs])
  return seen_lib.used_for(seen, patient_ids)


def _num_seen(used):
  """Counts nodules whose patients were used in training, and in selection."""
  return [int(np.sum(used == use)) for use in seen_lib.USES]


def seen_counts(runs: Sequence[Run], used: np.ndarray) -> dict[str, Any]:
  """Counts the nodules whose patients were seen, as metrics.json records it.

  Args:
    runs: from `read`.
    used: from `used_for`.
  """
  num_trained, num_selected = _num_seen(used)
  return {
    'compared_by': 'fold' if any(run.seen.by_fold for run in runs) else 'id',
    'nodules_of_patients_trained_on': num_trained,
    'nodules_of_patients_chosen_by': num_selected,
  }


def caution(runs: Sequence[Run], used: np.ndarray) -> str:
  """Returns a caution about optimistic metrics; '' if no patient was seen.

  Args:
    runs: from `read`.
    used: from `used_for`.
  """
  num_trained, num_selected = _num_seen(used)
  num_seen = num_trained + num_selected
  if not num_seen:
    return ''
  used_by = 'of the run' if len(runs) == 1 else 'of at least one of the runs'
  return (
    f'CAUTION: {num_seen} of these {len(used)} nodules belong to patients used'
    f' in training ({num_trained}) or model selection ({num_selected})\n'
    f'{used_by}; the metrics are too optimistic.'
  )


def note_by_fold(runs: Sequence[Run]) -> str:
  """Returns a note on runs without a seen.csv; '' if all have one."""
  lacking = ', '.join(run.path for run in runs if run.seen.by_fold)
  if not lacking:
    return ''
  return (
    f'{lacking} has no {seen_lib.FILE}: it is assumed to have seen all of'
    ' LIDC-IDRI except its\ntest fold. Run its training command again to write'
    ' the file.'
  )


def predict(
  runs: Sequence[Run],
  nodules: nodules_lib.Nodules,
  *,
  symmetries: bool,
  progress: Callable[[str], Callable[..., Any]],
) -> tuple[list[list[dict[str, Any]]], ensemble.Averaged]:
  """Predicts a split with the networks of each run, one run after another.

  Args:
    runs: from `read`.
    nodules: the split.
    symmetries: whether each run predicts every patch in all eight rotations and
      reflections.
    progress: maps a title to the function that wraps the batches, as
      `command_line.progress_bar` does.

  Returns:
    The records of each run alone, for unrotated patches; and the average of all
    outputs.
  """
  singles = []
  num_passes = len(runs) * (ensemble.NUM_SYMMETRIES if symmetries else 1)
  titles = (
    f'evaluating, {i} of {num_passes}' for i in range(1, num_passes + 1)
  )

  def all_outputs() -> Iterator[Mapping[str, np.ndarray]]:
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
