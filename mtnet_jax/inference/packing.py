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
from mtnet_jax.inference import card
from mtnet_jax.inference import remote
from mtnet_jax.models import nets
from mtnet_jax.models import predictor
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import files
from mtnet_jax.storage import tensors
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

  Raises:
    errors.InputError: a run cannot be used, an average was not evaluated, or
      `out` cannot be written.
  """
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
      metrics, temperature = _measured(
        folders[0],
        read,
        runs,
        symmetries=symmetries,
        calibrate=calibrate,
        leave_out=leave_out,
      )
    if note:
      metrics = {**metrics, 'note': note}
  with config.unlocked():
    # The paths on this machine concern nobody else.
    config.dataset.data_dir = ''
    if config.get('start_from'):
      config.start_from = bundles.name_of(config.start_from)
  bundle = bundle_files.Bundle(
    name or first.name, config, metrics, '', members, symmetries, temperature
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


def _measured(folder, read, runs, *, symmetries, calibrate, leave_out):
  """metrics.json and temperature of an average, from its evaluations."""
  config, metrics = read[0].config, read[0].metrics
  summary_of = functools.partial(
    scores.summarise,
    diameter_model=metrics['diameter_only_model'],
    seed=config.seed,
  )

  def records_of(split):
    found = folder
    if split != 'test' or len(runs) > 1 or symmetries:
      found = workdir.evaluation_dir(
        folder,
        config.dataset.name,
        split,
        members=len(runs),
        symmetries=symmetries,
      )
    if not (found / 'records.csv').exists():
      command = 'python -m mtnet_jax.evaluate --workdir ' + ' '.join(
        map(str, runs)
      )
      raise errors.InputError(
        f'{found} has no results yet: give `{command} --split={split}'
        f'{" --symmetries" if symmetries else ""}` first.'
      )
    described = files.read_json(found / 'metrics.json')
    _check_evaluation(found, described, read)
    return [
      record
      for record in finished_run.read_csv(found / 'records.csv')
      if record['nodule_id'] not in leave_out
    ]

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


def _check_evaluation(folder, described, read):
  """Raises `InputError` where it is of other runs, or of nodules they saw."""
  evaluated = [
    (member['seed'], member['rotate_folds'])
    for member in described.get('members', [])
  ]
  expected = [
    (bundle.config.seed, bundle.config.dataset.rotate_folds) for bundle in read
  ]
  if evaluated and evaluated != expected:
    raise errors.InputError(
      f'{folder} has the results of other runs: evaluate these again.'
    )
  rotations = {rotation for _, rotation in expected}
  if len(rotations) > 1:
    raise errors.InputError(
      f'{folder} has results of nodules that one run tests and another was'
      ' trained on, which no card may show: give runs of the same folds.'
    )


def _scores_and_labels(records):
  labels = records_lib.column(records, 'label')
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
    files.write_text(
      staged / bundle_files.CARD,
      card.model_card(bundle.name, bundle.config, bundle.metrics),
    )
    tensors.write(staged / bundle_files.WEIGHTS, variables)
    bundle_files.write_manifest(
      staged,
      name=bundle.name,
      members=len(bundle.members),
      symmetries=bundle.symmetries,
      temperature=bundle.temperature,
    )
