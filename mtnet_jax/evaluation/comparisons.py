"""Other runs on the same test nodules, compared with this one in pairs.

The difference of two runs is computed nodule by nodule, and its interval by
resampling the patients of both at once.
"""

import pathlib
from typing import NamedTuple

from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors

# Sweeps with points that have rows in the paper's tables, by file of configs.
SWEEPS = {
  'baselines.py': ('table1', 'tables', 'variants'),
  'ablations.py': ('table4', 'table5'),
}
_WITH_ROWS = 'the sweeps that have are ' + ' and '.join(
  f'{", ".join(names)} of configs/{file}' for file, names in SWEEPS.items()
)


class Comparison(NamedTuple):
  """Another run's numbers; None where it, or this one, has no such network.

  Attributes:
    segmentation, classification: of that run, metric -> {'value', 'ci95'}.
    segmentation_difference, classification_difference: this run minus that.
  """

  segmentation: dict | None
  segmentation_difference: dict | None
  classification: dict | None
  classification_difference: dict | None


def names_of(config):
  """Which comparisons a run makes, by what its config says; none for MT-Net."""
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


def read(paths, run, *, say=print):
  """Compares runs with one.

  Args:
    paths: of run directories, or of folders of them such as a sweep's.
    run: `finished_run.FinishedRun`.
    say: prints a line, where nothing in a path has a row in the report.

  Returns:
    Name, as of `names_of`, -> `Comparison`.

  Raises:
    errors.InputError: a path holds no run, one is not of the same nodules, or
      two are the same comparison.
  """
  found = {}
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
  """(directory, names) of the runs in a path that are compared with one."""
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
  # Of a point that was trained once for each test fold, this run's.
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
  # The points of a sweep, and of each its test folds.
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


def compare(records, others, *, seed):
  """`Comparison` of two runs' records of the same nodules in one order."""
  weights = records_lib.patient_weights(records, seed=seed)
  return Comparison(
    *_segmentation(records, others, weights),
    *_classification(records, others, weights),
  )


def _segmentation(records, others, weights):
  """That run's estimates and the difference, of the last mask of each."""
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
  """That run's estimates and the difference."""
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
