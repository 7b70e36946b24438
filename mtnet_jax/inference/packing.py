"""Bundles written, from one run or from several whose outputs are averaged."""

import contextlib
import functools
import json
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


def write(
  runs,
  out,
  *,
  name=None,
  symmetries=False,
  float16=False,
  calibrate=False,
  leave_out=(),
  note='',
  license=None,
):
  """Packs a finished run, or several to be averaged.

  Args:
    runs: the directory of one, or a URL; or a list of them.
    out: the folder to make; it may exist if it is empty.
    name: of the model; default: of the first run's directory.
    symmetries: whether the model averages over rotations and reflections.
    float16: whether weights are rounded to half precision.
    calibrate: whether probabilities of malignancy are calibrated on the
      validation split.
    leave_out: ids of nodules that the card's results do not count, nor the
      calibration, such as those of which the CT is missing.
    note: a paragraph for the card, about the data.
    license: of the model, an identifier of the Hub; default: that of the first
      bundle, if there is one, and else 'unknown'.

  Raises:
    errors.InputError: a run cannot be used, an average was not evaluated, or
      `out` cannot be written.
  """
  if name is not None:
    texts.check_name(name, '--name')
  if license is not None:
    texts.check_license(license, '--license')
  note = ' '.join(note.split())
  runs = runs if isinstance(runs, (list, tuple)) else [runs]
  with contextlib.ExitStack() as stack:
    folders = [
      stack.enter_context(remote.local_folder(run, wanted=_WANTED.fullmatch))
      for run in runs
    ]
    read = []
    for run, folder in zip(runs, folders, strict=True):
      with bundle_files.damage(folder):
        read.append(bundles.read(folder, name=bundles.name_of(run)))
        front_matter.readme(read[-1])  # Before what takes long.
    first = read[0]
    config = first.config.copy_and_resolve_references()
    members = [variables for bundle in read for variables in bundle.members]
    _check(read, members, config, runs)
    metrics = first.metrics
    temperature = first.temperature
    symmetries = symmetries or first.symmetries
    if (
      len(runs) > 1
      or symmetries != first.symmetries
      or calibrate
      or len(leave_out)
    ):
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
    # The paths on this machine concern nobody else.
    config.dataset.data_dir = ''
    if config.get('start_from'):
      config.start_from = bundles.name_of(config.start_from)
  bundle = bundle_files.Bundle(
    name or first.name,
    config,
    metrics,
    '',
    members,
    symmetries,
    temperature,
    _seen(read),
  )
  _write(bundle, out, float16=float16)


def _check(read, members, config, runs):
  for run, bundle in zip(runs, read, strict=True):
    if predictor.options(bundle.config) != predictor.options(config):
      raise errors.InputError(
        f'{run} cannot be averaged with {runs[0]}: its inputs are others. Give'
        ' runs that differ in seed or fold.'
      )
    if len(read) > 1 and (bundle.symmetries or len(bundle.members) > 1):
      raise errors.InputError(
        f'{run} is an average already: give the runs that it is of.'
      )
  for variables in members:
    nets.check_variables(config, variables)


def _seen(read):
  """What the runs have seen together; None where none kept a list."""
  if all(bundle.seen is None for bundle in read):
    return None
  return seen_lib.union(
    [seen_by.or_by_fold(bundle.seen, bundle.config) for bundle in read]
  )


def _measured(folders, read, runs, *, symmetries, calibrate, leave_out):
  """metrics.json and temperature of an average, from its evaluations."""
  config, metrics = read[0].config, read[0].metrics
  summary_of = functools.partial(
    scores.summarise,
    diameter_model=metrics['diameter_only_model'],
    seed=config.seed,
  )

  def records_of(split):
    found = folders[0]
    if split != 'test' or len(runs) > 1 or symmetries:
      found = _evaluated(
        folders, read, runs, split=split, symmetries=symmetries
      )
    rows = finished_run.read_csv(found / 'records.csv')
    _check_unseen(found, rows, read, runs, split)
    return [row for row in rows if row['nodule_id'] not in leave_out]

  records = records_of('test')
  temperature = 1.0
  found = {}
  if calibrate:
    chosen = records_of('validation')
    temperature = calibration.fit_temperature(*_scores_and_labels(chosen))
    before = summary_of(records)['probabilities']['classification']
    for record in records:
      record['malignancy_probability'] = float(
        calibration.tempered(record['malignancy_probability'], temperature)
      )
    found = {
      'temperature': temperature,
      'fitted_to': {'split': 'validation', **records_lib.count(chosen)},
      'calibration_error_before': before['calibration_error'],
      'curve': _curve(records),
    }
  metrics = {
    **metrics,
    'members': [{'seed': bundle.config.seed} for bundle in read],
    'symmetries': symmetries,
    'calibration': found,
    'left_out': sorted(leave_out),
    'test': summary_of(records),
  }
  return metrics, temperature


def _evaluated(folders, read, runs, *, split, symmetries):
  """The folder with the results of all runs together on a split."""
  dataset = read[0].config.dataset.name
  expected = workdir.evaluation_dir(
    folders[0], dataset, split, members=len(runs), symmetries=symmetries
  )
  several = evaluations.candidates(expected)
  if not several:
    command = 'python -m mtnet_jax.evaluate --workdir ' + ' '.join(
      map(str, runs)
    )
    raise errors.InputError(
      f'{expected} has no results yet: give `{command} --split={split}'
      f'{" --symmetries" if symmetries else ""}` first.'
    )
  fit = [
    path
    for path, described in several
    if _is_of(path, described, folders, read)
  ]
  if not fit:
    raise errors.InputError(
      f'{expected} has the results of other runs: evaluate these again.'
    )
  if len(fit) > 1:
    raise errors.InputError(
      f'{" and ".join(map(str, fit))} have results of these runs, on data that'
      ' differ: delete all but one.'
    )
  return fit[0]


def _is_of(path, described, folders, read):
  """Whether the metrics.json of an evaluation is of these runs."""
  with errors.of_wrong_values(
    f'{path}/metrics.json is damaged',
    way_out='Delete that folder, and evaluate again.',
  ):
    dataset = read[0].config.dataset.name
    members = described.get('members', [])
    if described.get('dataset', dataset) != dataset or len(members) != len(
      read
    ):
      return False
    return all(
      (member['seed'], member['rotate_folds'])
      == (bundle.config.seed, bundle.config.dataset.rotate_folds)
      # Earlier versions wrote no id.
      and member.get('id') in (None, workdir.run_id(folder))
      for member, folder, bundle in zip(members, folders, read, strict=True)
    )


def _check_unseen(folder, records, read, runs, split):
  """Raises where a run has seen nodules that another one tests.

  Those of the validation split may have chosen it, and not trained it. Patients
  whom the first run divides between its own splits do not count.
  """
  uses = seen_lib.USES if split == 'test' else seen_lib.USES[:1]

  def seen(by):
    return {key for key, use in by.items() if use in uses}

  first = read[0].seen or seen_lib.Seen(frozenset())
  divided = seen(seen_lib.patients(first))
  for run, bundle in zip(runs, read, strict=True):
    if bundle.seen is None:
      continue
    nodules = seen(seen_lib.nodules(bundle.seen))
    patients = seen(seen_lib.patients(bundle.seen)) - divided
    count = sum(
      row.get('nodule_id') in nodules or row.get('patient_id') in patients
      for row in records
    )
    if count:
      raise errors.InputError(
        f'{folder} has results of {count} nodules that {run} has seen, or'
        ' others of their patients, which no card may show: give runs of the'
        ' same folds.'
      )
  rotations = {bundle.config.dataset.rotate_folds for bundle in read}
  if len(rotations) > 1 and any(bundle.seen is None for bundle in read):
    raise errors.InputError(
      f'{folder} has results of nodules that one run tests and another was'
      ' trained on, which no card may show: give runs of the same folds.'
    )


def _scores_and_labels(records):
  labels = np.asarray([row['label'] for row in records], np.float64)
  known = labels >= 0
  scored = records_lib.column(records, 'malignancy_probability')
  return scored[known], labels[known]


def _curve(records):
  """The calibration curve of the test nodules, a dict per filled bin."""
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
  """Parameters in half precision; statistics may lie beyond its range."""
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


def _write(bundle, out, *, float16):
  """Writes a bundle, whose card is made here."""
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
