"""Compares other runs with this one on the same test nodules.

The difference of two runs is computed nodule by nodule, and its interval by
resampling the patients of both together.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import os
import pathlib
from typing import Any
from typing import NamedTuple

import ml_collections

from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors

# File of configs -> its sweeps that have rows in the paper's tables.
SWEEPS = {
  'baselines.py': ('table1', 'tables', 'variants'),
  'ablations.py': ('table4', 'table5'),
}
_WITH_ROWS = 'the sweeps with rows are ' + ' and '.join(
  f'{", ".join(names)} of configs/{file}' for file, names in SWEEPS.items()
)


class Comparison(NamedTuple):
  """Results of another run, and their difference from this run's.

  A value is None if the other run lacks the network; a difference is None if
  either run lacks it.

  Attributes:
    segmentation: metric -> {'value', 'ci95'} of the other run's last mask.
    segmentation_difference: the same for this run minus the other.
    classification: metric -> {'value', 'ci95'} of the other run's classifier.
    classification_difference: the same for this run minus the other.
  """

  segmentation: dict[str, Any] | None
  segmentation_difference: dict[str, Any] | None
  classification: dict[str, Any] | None
  classification_difference: dict[str, Any] | None


def names_of(config: ml_collections.ConfigDict) -> list[str]:
  """Returns the comparisons that a run belongs to; none for MT-Net itself."""
  strategy = config.get('strategy', 'mtnet')
  if strategy != 'mtnet':
    return [strategy]
  if config.coarse_mask != 'none':
    return []
  return [
    f'{stage}_without_mask'
    for stage in ('class', 'fine')
    if stage in config.stages
  ]


def read(
  paths: Iterable[str | os.PathLike[str]],
  run: finished_run.FinishedRun,
  *,
  say: Callable[[str], object] = print,
) -> dict[str, Comparison]:
  """Reads other runs and compares them with this one.

  Args:
    paths: run directories, or folders of them such as a sweep's.
    run: this run.
    say: prints a note for a path without any run that has a row in the report.

  Returns:
    Name, as in `names_of` -> `Comparison`.

  Raises:
    errors.InputError: a path holds no run, a run has other nodules, or two runs
      belong to the same comparison.
  """
  found: dict[str, Comparison] = {}
  for path in paths:
    for directory, names in _runs_with_rows(path, run, say):
      other = finished_run.read(directory)
      _check_pair(run, other)
      for name in names:
        if name in found:
          raise errors.InputError(
            f'{directory} is a second run of {name}: give one of each.'
          )
      comparison = compare(run.records, other.records, seed=run.config.seed)
      found.update(dict.fromkeys(names, comparison))
  return found


def _runs_with_rows(path, run, say):
  """Returns (directory, names) of the runs in a path to compare with `run`."""
  directories = _run_directories(path)
  if not directories:
    raise errors.InputError(
      f'{path} holds nothing to compare with: give the directory of a'
      ' finished sweep or comparison run.'
    )
  configs = {x: workdir_lib.read_config(x) for x in directories}
  named = {x: names_of(config) for x, config in configs.items()}
  named = {x: names for x, names in named.items() if names}
  if not named:
    say(f"note: {path} has no row in the paper's tables; {_WITH_ROWS}.")
    return []
  # A point may be trained once per test fold: only this run's fold counts.
  fold = run.config.dataset.get('rotate_folds', 0)
  of_fold = [
    (directory, names)
    for directory, names in named.items()
    if configs[directory].dataset.get('rotate_folds', 0) == fold
  ]
  if not of_fold:
    raise errors.InputError(
      f'{path} cannot be compared with {run.path}: none of its runs was tested'
      ' on the same fold.'
    )
  return of_fold


def _run_directories(path):
  path = pathlib.Path(path)
  if (path / 'config.json').exists():
    return [path]
  # The points of a sweep, and the test folds of each point.
  return sorted(
    config.parent
    for pattern in ('*/config.json', '*/fold*/config.json')
    for config in path.glob(pattern)
  )


def _check_pair(run, other):
  for what, value_of in (
    ('dataset', lambda r: r.config.dataset.name),
    ('nodules', lambda r: r.config.dataset.fingerprint),
    ('variant', lambda r: r.config.variant),
    (
      'test nodules',
      lambda r: [
        (record['nodule_id'], record['label']) for record in r.records
      ],
    ),
  ):
    if value_of(run) != value_of(other):
      raise errors.InputError(
        f'{other.path} cannot be compared with {run.path}: they differ in their'
        f' {what}.'
      )


def compare(
  records: Sequence[Mapping[str, Any]],
  others: Sequence[Mapping[str, Any]],
  *,
  seed: int,
) -> Comparison:
  """Compares two runs by their records of the same nodules in the same order.

  Args:
    records: this run's records.
    others: the other run's records.
    seed: seed of the resampling.
  """
  weights = records_lib.patient_weights(records, seed=seed)
  return Comparison(
    *_segmentation(records, others, weights),
    *_classification(records, others, weights),
  )


def _segmentation(records, others, weights):
  """Returns the other run's estimates and the difference, of the last masks."""
  masks, other_masks = map(records_lib.masks_of, (records, others))
  if not other_masks:
    return None, None
  estimates = scores.estimates(
    scores.of_output(others, other_masks[-1], weights)
  )
  if not masks:
    return estimates, None
  return estimates, scores.mask_difference(
    (records, masks[-1]), (others, other_masks[-1]), weights
  )


def _classification(records, others, weights):
  """Returns the other run's estimates and the difference."""
  values, other_values = (
    scores.of_output(rows, 'class', weights)
    if 'class' in records_lib.outputs_of(rows)
    else None
    for rows in (records, others)
  )
  if other_values is None:
    return None, None
  estimates = scores.estimates(other_values)
  if values is None:
    return estimates, None
  return estimates, scores.difference(values, other_values)
