"""Collects the numbers of finished runs in the files of docs/results.

nodules.csv    a row per nodule, with its properties
SWEEP.csv      a row per point of the sweep and nodule, with its metrics
runs.json      how, where and when the runs were made, and how long they took

The files contain nothing of the CT. `read` returns the records of each point in
the form of `mtnet_jax.evaluation.records`. Runs of another day can be added: a
finished point replaces the earlier numbers of this point.
"""

import json
import math
import pathlib
import statistics

from benchmarks.results import sources
from mtnet_jax import metrics
from mtnet_jax.evaluation import finished_run
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores
from mtnet_jax.storage import files
from mtnet_jax.system import errors

_NODULE = (
  'nodule_id',
  'patient_id',
  'slice_index',
  'fold',
  'label',
  'simulated',
  'diameter_mm',
  'texture',
  'num_readers',
  'reader_dice',
  'consensus_reader_dice',
)
# Facts of a run that the user of the command states.
_STAMP = ('hardware', 'date', 'busy')
_PER_MASK = (*metrics.SEGMENTATION, 'reader_dice')
DIAMETER = 'diameter_only'
PEERS = sources.PEERS


def gather(runs, folder, *, hardware, date, busy=False):
  """Adds the finished points below RUNS to the files in FOLDER.

  Args:
    runs: the folder that the commands of `sources` wrote.
    folder: folder of the files; it need not exist.
    hardware: hardware of the new runs, for the page.
    date: date of the new runs, for the page.
    busy: whether other work shared their cores. The page then leaves out the
      times of the new points.

  Raises:
    errors.InputError: no point is finished, or runs do not belong together.
  """
  runs, folder = pathlib.Path(runs), pathlib.Path(folder)
  records, made = {}, {}
  if (folder / 'runs.json').exists():
    records, made = read(folder)
  new = 0
  for sweep in sources.SWEEPS.values():
    found, facts = _of_sweep(sweep, runs)
    if sweep is sources.TABLES:
      peers = _of_peers(runs / sources.PEERS)
      if peers is not None:
        found[PEERS], facts[PEERS] = peers
    new += len(facts)
    before = made.get(sweep.name, {})
    for name, facts_of_folds in facts.items():
      for fact in facts_of_folds:
        fact |= {'hardware': hardware, 'date': date, 'busy': busy}
      if _without_stamp(before.get(name)) == _without_stamp(facts_of_folds):
        # These runs were gathered before: their first stamp is the true one.
        facts[name] = before[name]
    if found:
      records.setdefault(sweep.name, {}).update(found)
      made.setdefault(sweep.name, {}).update(facts)
  if not new:
    raise errors.InputError(
      f'{runs} holds no finished point: begin with `{sources.TABLES.command}`.'
    )
  _check(made, folder)
  nodules = _nodules(records)
  files.make_folder(folder)
  for name, points in records.items():
    files.write_csv(folder / f'{name}.csv', list(_rows(points)))
  files.write_csv(folder / 'nodules.csv', [nodules[x] for x in sorted(nodules)])
  files.write_json(folder / 'runs.json', made)


def _without_stamp(facts_of_folds):
  """Returns the facts of a point's runs as in JSON, without `_STAMP`."""
  return json.loads(
    json.dumps(
      [
        {key: x for key, x in fact.items() if key not in _STAMP}
        for fact in facts_of_folds or ()
      ]
    )
  )


def _check(made, folder):
  """Raises `errors.InputError` if runs do not belong together."""
  first = {}  # fold -> (fingerprint of its splits, name of the run)
  for sweep, points in made.items():
    for point, facts_of_folds in points.items():
      for fact in facts_of_folds:
        fold, found = fact['fold'], fact['fingerprint']
        name = f'{point} of {sweep}, fold {fold}'
        known, other = first.setdefault(fold, (found, name))
        if known != found:
          raise errors.InputError(
            f'{other} and {name} are of different builds of the dataset: gather'
            f' runs of one build, or delete {folder} first if it holds others.'
          )
  _check_peers(made.get(sources.TABLES.name, {}))


def _nodules(records):
  """Returns nodule_id -> its properties, which are the same in all runs."""
  nodules = {}
  for points in records.values():
    for rows in points.values():
      for row in rows:
        key = row['nodule_id']
        facts = {name: row.get(name) for name in _NODULE}
        first = nodules.setdefault(key, facts)
        for name in ('label', 'fold', 'simulated'):
          if first[name] != row[name]:
            raise errors.InputError(
              f'the runs are of several datasets: the {name} of {key} is'
              f' {first[name]} in one and {row[name]} in another. Gather the'
              ' runs of one dataset into a folder of their own.'
            )
  return nodules


def has_finished(runs, name):
  """Returns whether all runs of a point of the tables are finished."""
  return name in _finished(sources.TABLES, pathlib.Path(runs))


def _finished(sweep, runs):
  """Returns point name -> folders of its runs, for the finished points."""
  points = {}
  for point in sweep.plan():
    folder = runs / f'{sweep.name}-small' / point.folder
    points.setdefault(point.name, []).append(folder)
  return {
    name: folders
    for name, folders in points.items()
    if all((folder / 'metrics.json').exists() for folder in folders)
  }


def _of_sweep(sweep, runs):
  """Returns the records and facts of the finished points of a sweep."""
  records, facts = {}, {}
  pairs = (
    (name, folder)
    for name, folders in _finished(sweep, runs).items()
    for folder in folders
  )
  for name, folder in pairs:
    run = finished_run.read(folder)
    records.setdefault(name, []).extend(_with_ct(run.records))
    facts.setdefault(name, []).append(_facts(run))
    if sweep is sources.TABLES and name == 'mtnet':
      records.setdefault(DIAMETER, []).extend(_by_diameter(run))
  return records, facts


def _with_ct(records):
  return [
    record
    for record in records
    if record['nodule_id'] not in sources.WITHOUT_CT
  ]


def _facts(run):
  return {
    'fold': (run.config.dataset.rotate_folds + 4) % 5,
    'seconds': {
      stage: sum(row['seconds'] for row in rows)
      for stage, rows in run.histories.items()
    },
    'compiling': {
      stage: _compiling([row['seconds'] for row in rows])
      for stage, rows in run.histories.items()
    },
    'cohort': run.results['cohort'],
    'dataset': run.config.dataset.name,
    'fingerprint': run.config.dataset.fingerprint,
    'image_size': run.config.image_size,
    'epochs': {stage: len(rows) for stage, rows in run.histories.items()},
    'simulated': run.results['simulated'],
    'devices': run.results['hardware'],
    'versions': run.results['versions'],
  }


def _compiling(seconds):
  """Returns by how much the first epoch exceeds the median of the others."""
  first, *others = seconds
  return max(0.0, first - statistics.median(others)) if others else 0.0


def _by_diameter(run):
  """Returns the records of the baseline with the readers' diameter alone."""
  records = _with_ct(run.records)
  scored = scores.malignancy_scores(records, run.results['diameter_only_model'])
  return [
    {
      **{name: record.get(name) for name in _NODULE},
      'malignancy_probability': float(probability),
    }
    for record, probability in zip(records, scored[DIAMETER], strict=True)
  ]


def _of_peers(directory):
  records, facts = [], []
  for fold in sources.FOLDS:
    path = directory / f'fold{fold}'
    if not (path / 'peers.json').exists():
      return None
    records.extend(_with_ct(finished_run.read_csv(path / 'records.csv')))
    facts.append({'fold': fold, **files.read_json(path / 'peers.json')})
  return records, facts


def _check_peers(facts):
  """Raises `errors.InputError` if the peers do not match MT-Net's runs."""
  ours = {fold['fold']: fold for fold in facts.get('mtnet', ())}
  for peer in facts.get(PEERS, ()):
    if peer['fold'] not in ours:
      raise errors.InputError(
        f'there are peers of fold {peer["fold"]}, and no MT-Net: run'
        f' `{sources.TABLES.command}`.'
      )
    run = ours[peer['fold']]
    time = sum(network['budget_s'] for network in peer['networks'])
    for what, found, wanted in (
      ('seconds', time, sum(run['seconds'].values())),
      ('share of the time', peer['share_of_time'], 1.0),
    ):
      if abs(found - wanted) > 1e-6 * wanted:
        raise errors.InputError(
          f'the peers of fold {peer["fold"]} had {found:g} for their {what},'
          f' and MT-Net {wanted:g}: train them again with'
          f' `{sources.PEERS_COMMAND}`.'
        )


def _rows(records):
  for point, rows in records.items():
    for row in rows:
      kept = {'point': point, 'nodule_id': row['nodule_id']}
      for mask in records_lib.masks_of(rows):
        for metric in _PER_MASK:
          kept[f'{mask}_{metric}'] = _short(row.get(f'{mask}_{metric}'))
      if 'malignancy_probability' in row:
        probability = row['malignancy_probability']
        # All digits, because the AUC depends on the order of probabilities.
        kept['malignancy_probability'] = probability
      yield kept


def _short(value):
  """Rounds to five digits: enough for means, and a third of the file size."""
  if value is None or not math.isfinite(value):
    return None
  return round(value, 5)


def read(folder):
  """Reads the files of a folder.

  Args:
    folder: the folder, written by `gather`.

  Returns:
    Two dicts: sweep name -> point name -> records, and sweep name -> point name
    -> a list of facts, a dict per run.

  Raises:
    errors.InputError: the files are missing or damaged.
  """
  folder = pathlib.Path(folder)
  made = files.read_json(folder / 'runs.json')
  nodules = {
    row['nodule_id']: row
    for row in finished_run.read_csv(folder / 'nodules.csv')
  }
  records = {}
  for name in made:
    points = records.setdefault(name, {})
    for row in finished_run.read_csv(folder / f'{name}.csv'):
      point = row.pop('point')
      present = {key: x for key, x in row.items() if x is not None}
      points.setdefault(point, []).append(
        {**nodules[row['nodule_id']], **present}
      )
  return records, made
