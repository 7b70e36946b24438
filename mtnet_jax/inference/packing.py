"""Writes bundles, from one run or from several whose outputs are averaged."""

from collections.abc import Collection
from collections.abc import Sequence
import contextlib
import functools
import json
import os
import pathlib
import re

import jax
import numpy as np

from mtnet_jax.evaluation import calibration
from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.inference import bundles
from mtnet_jax.inference import front_matter
from mtnet_jax.inference import remote
from mtnet_jax.inference import seen_by
from mtnet_jax.models import nets
from mtnet_jax.models import predictor
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import evaluations
from mtnet_jax.storage import files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import tensors
from mtnet_jax.storage import texts
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors

_WANTED = re.compile(
  bundles.WANTED.pattern + r'|(evaluations/[^/]+/)?(records\.csv|metrics\.json)'
)


_Path = str | os.PathLike[str]


def write(
  runs: _Path | Sequence[_Path],
  out: _Path,
  *,
  name: str | None = None,
  symmetries: bool = False,
  float16: bool = False,
  calibrate: bool = False,
  leave_out: Collection[str] = (),
  note: str = '',
  license: str | None = None,
) -> None:
  """Packs a finished run, or the average of several.

  Args:
    runs: a run directory, a bundle, or a URL of one; or a list of these.
    out: the folder to make; it may exist if it is empty.
    name: name of the model; default: name of the first run's directory.
    symmetries: whether the model averages over rotations and reflections.
    float16: whether to round weights to half precision.
    calibrate: whether to calibrate probabilities of malignancy on the
      validation split.
    leave_out: ids of nodules to omit from the card's results and the
      calibration, for example because their CT is missing.
    note: a paragraph for the card, about the data.
    license: identifier of the licence on the Hub; default: that of the bundle,
      or 'unknown' for runs.

  Raises:
    errors.InputError: a run cannot be used, an average was not evaluated, or
      `out` cannot be written.
  """
  if name is not None:
    texts.check_name(name, '--name')
  if license is not None:
    texts.check_license(license, '--license')
  note = ' '.join(note.split())
  if isinstance(runs, (str, os.PathLike)):
    runs = [runs]
  with contextlib.ExitStack() as stack:
    folders = [
      stack.enter_context(remote.local_folder(run, wanted=_WANTED.fullmatch))
      for run in runs
    ]
    read = []
    for run, folder in zip(runs, folders, strict=True):
      with bundle_files.damage(folder):
        read.append(bundles.read(folder, name=bundles.name_of(run)))
        # Refuses texts that a card cannot have, before the slow steps.
        front_matter.readme(read[-1])
    first = read[0]
    config = first.config.copy_and_resolve_references()
    members = [variables for bundle in read for variables in bundle.members]
    _check(read, members, config, runs)
    metrics = first.metrics
    temperature = first.temperature
    symmetries = symmetries or first.symmetries
    is_new_average = len(runs) > 1 or symmetries != first.symmetries
    if is_new_average or calibrate or len(leave_out):
      with finished_run.damage(runs[0]):
        metrics, temperature = _measured(
          folders,
          read,
          runs,
          symmetries=symmetries,
          calibrate=calibrate,
          leave_out=leave_out,
        )
    if note:
      metrics = {**metrics, 'note': note}
    if license is not None:
      metrics = {**metrics, 'license': license}
  with config.unlocked():
    # Paths of this machine are private.
    config.dataset.data_dir = ''
    if config.get('start_from'):
      config.start_from = bundles.name_of(config.start_from)
  bundle = bundle_files.Bundle(
    name=name or first.name,
    config=config,
    metrics=metrics,
    card='',  # `_write` makes it.
    members=tuple(members),
    symmetries=symmetries,
    temperature=temperature,
    seen=_seen(read),
  )
  _write(bundle, out, float16=float16)


def _check(read, members, config, runs):
  """Raises `errors.InputError` if the runs cannot form one model."""
  for run, bundle in zip(runs, read, strict=True):
    if predictor.options(bundle.config) != predictor.options(config):
      raise errors.InputError(
        f'{run} cannot be averaged with {runs[0]}: its input size, window, mask'
        ' or strategy differs. List runs that differ only in seed or fold.'
      )
    if len(read) > 1 and (bundle.symmetries or len(bundle.members) > 1):
      raise errors.InputError(
        f'{run} is an average already: list the runs that it averages.'
      )
  for variables in members:
    nets.check_variables(config, variables)


def _seen(read):
  """Returns what the runs have seen together; None if none kept a list."""
  if all(bundle.seen is None for bundle in read):
    return None
  return seen_lib.union(
    [seen_by.or_by_fold(bundle.seen, bundle.config) for bundle in read]
  )


def _measured(folders, read, runs, *, symmetries, calibrate, leave_out):
  """Returns metrics.json and the temperature, from the runs' evaluations."""
  config, metrics = read[0].config, read[0].metrics
  summary_of = functools.partial(
    scores.summarise,
    diameter_model=metrics['diameter_only_model'],
    seed=config.seed,
  )

  def records_of(split):
    folder = folders[0]
    if split != 'test' or len(runs) > 1 or symmetries:
      folder = _evaluation_folder(
        folders, read, runs, split=split, symmetries=symmetries
      )
    rows = finished_run.read_csv(folder / 'records.csv')
    _check_unseen(folder, rows, read, runs, split)
    return [row for row in rows if row['nodule_id'] not in leave_out]

  records = records_of('test')
  temperature = 1.0
  fitted = {}
  if calibrate:
    validation = records_of('validation')
    temperature = calibration.fit_temperature(*_scores_and_labels(validation))
    before = summary_of(records)['probabilities']['classification']
    for record in records:
      record['malignancy_probability'] = float(
        calibration.tempered(record['malignancy_probability'], temperature)
      )
    fitted = {
      'temperature': temperature,
      'fitted_to': {'split': 'validation', **records_lib.count(validation)},
      'calibration_error_before': before['calibration_error'],
      'curve': _curve(records),
    }
  metrics = {
    **metrics,
    'members': [{'seed': bundle.config.seed} for bundle in read],
    'symmetries': symmetries,
    'calibration': fitted,
    'left_out': sorted(leave_out),
    'test': summary_of(records),
  }
  return metrics, temperature


def _evaluation_folder(folders, read, runs, *, split, symmetries):
  """Returns the folder with the joint results of all runs on a split."""
  dataset = read[0].config.dataset.name
  expected = workdir.evaluation_dir(
    folders[0], dataset, split, members=len(runs), symmetries=symmetries
  )
  candidates = evaluations.candidates(expected)
  if not candidates:
    command = 'python -m mtnet_jax.evaluate --workdir ' + ' '.join(
      map(str, runs)
    )
    raise errors.InputError(
      f'{expected} has no results yet: run `{command} --split={split}'
      f'{" --symmetries" if symmetries else ""}` first.'
    )
  matching = [
    path for path, results in candidates if _is_of(path, results, folders, read)
  ]
  if not matching:
    raise errors.InputError(
      f'{expected} has results of other runs: evaluate these runs again.'
    )
  if len(matching) > 1:
    raise errors.InputError(
      f'{" and ".join(map(str, matching))} have results of these runs on'
      ' different data: delete all but one.'
    )
  return matching[0]


def _is_of(path, results, folders, read):
  """Whether the metrics.json of an evaluation is of these runs."""
  with errors.of_wrong_values(
    f'{path}/metrics.json is damaged',
    way_out='Delete that folder, and evaluate again.',
  ):
    dataset = read[0].config.dataset.name
    members = results.get('members', [])
    if results.get('dataset', dataset) != dataset or len(members) != len(read):
      return False
    return all(
      (member['seed'], member['rotate_folds'])
      == (bundle.config.seed, bundle.config.dataset.rotate_folds)
      # Earlier versions wrote no id.
      and member.get('id') in (None, workdir.run_id(folder))
      for member, folder, bundle in zip(members, folders, read, strict=True)
    )


def _check_unseen(folder, records, read, runs, split):
  """Raises `errors.InputError` if a run has seen nodules that another tests.

  Validation nodules may have been used for model selection, but not training.
  Patients that the first run itself has in several splits do not count.
  """
  uses = seen_lib.USES if split == 'test' else seen_lib.USES[:1]

  def used(use_by_id):
    return {key for key, use in use_by_id.items() if use in uses}

  first = read[0].seen or seen_lib.Seen(frozenset())
  divided = used(seen_lib.patients(first))
  for run, bundle in zip(runs, read, strict=True):
    if bundle.seen is None:
      continue
    nodules = used(seen_lib.nodules(bundle.seen))
    patients = used(seen_lib.patients(bundle.seen)) - divided
    num_seen = sum(
      row.get('nodule_id') in nodules or row.get('patient_id') in patients
      for row in records
    )
    if num_seen:
      raise errors.InputError(
        f'{folder} has results of {num_seen} nodules of patients that {run} has'
        ' seen, which no card may show: list runs of the same folds.'
      )
  rotations = {bundle.config.dataset.rotate_folds for bundle in read}
  if len(rotations) > 1 and any(bundle.seen is None for bundle in read):
    raise errors.InputError(
      f'{folder} has results of nodules that one run tests and another has'
      ' seen, which no card may show: list runs of the same folds.'
    )


def _scores_and_labels(records):
  """Returns probabilities and labels of the labelled nodules."""
  labels = np.asarray([row['label'] for row in records], np.float64)
  known = labels >= 0
  scored = records_lib.column(records, 'malignancy_probability')
  return scored[known], labels[known]


def _curve(records):
  """Returns the calibration curve, as one dict per bin that is not empty."""
  scored, labels = _scores_and_labels(records)
  predicted, observed, weight = calibration.curve(
    scored, labels, np.ones(len(scored))
  )
  return [
    {
      'mean_probability': float(predicted[i]),
      'share_malignant': float(observed[i]),
      'nodules': int(weight[i]),
    }
    for i in np.flatnonzero(weight)
  ]


def _rounded(tree):
  """Rounds parameters to float16, but not statistics, which may overflow."""
  return {
    key: (
      jax.tree.map(lambda x: np.asarray(x, np.float16), value)
      if key == 'params'
      else value
      if key == 'batch_stats'
      else _rounded(value)
    )
    for key, value in tree.items()
  }


def _write(bundle: bundle_files.Bundle, out: _Path, *, float16: bool) -> None:
  """Writes a bundle and its README.md."""
  variables = bundle.members[0]
  if len(bundle.members) > 1:
    variables = {str(i): tree for i, tree in enumerate(bundle.members)}
  if float16:
    variables = _rounded(variables)
  with files.new_folder(out) as staged:
    staged = pathlib.Path(staged)
    files.write_json(
      staged / bundle_files.CONFIG, json.loads(bundle.config.to_json())
    )
    files.write_json(staged / bundle_files.METRICS, bundle.metrics)
    files.write_text(staged / bundle_files.CARD, front_matter.readme(bundle))
    tensors.write(staged / bundle_files.WEIGHTS, variables)
    if bundle.seen is not None:
      seen_lib.write(staged / seen_lib.FILE, bundle.seen)
    bundle_files.write_manifest(
      staged,
      name=bundle.name,
      members=len(bundle.members),
      symmetries=bundle.symmetries,
      temperature=bundle.temperature,
    )
