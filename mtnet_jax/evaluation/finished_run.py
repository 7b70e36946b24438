"""Reads a finished run, and checks that its files belong together."""

import contextlib
import csv
import io
import os
import pathlib
from typing import Any
from typing import NamedTuple

import ml_collections

import mtnet_jax
from mtnet_jax.evaluation import scores
from mtnet_jax.models import nets
from mtnet_jax.storage import files
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors

# Allowed difference of the same number computed on two machines.
_TOLERANCE = 1e-6
# Versions of mtnet_jax whose runs are read. They write the same files, except
# for the names of columns below.
_READABLE = ('0.1.0', '0.2.0')
# Former name of a column -> its current name.
_RENAMED = {'malignancy': 'malignancy_rating_mean'}


class FinishedRun(NamedTuple):
  """The contents of a run directory.

  Attributes:
    path: the run directory.
    config: contents of config.json.
    results: contents of metrics.json.
    records: a dict per test nodule, as from `records.make_records`.
    histories: stage name -> a dict per epoch, as from `trainer.Trainer.run`.
  """

  path: pathlib.Path
  config: ml_collections.ConfigDict
  results: dict[str, Any]
  records: list[dict[str, Any]]
  histories: dict[str, list[dict[str, Any]]]


def damage(
  path: str | os.PathLike[str],
) -> contextlib.AbstractContextManager[None]:
  """Turns errors that a damaged run causes into `errors.InputError`.

  Args:
    path: the run directory.
  """
  return errors.of_wrong_values(
    f'{path} is damaged, or of another version',
    way_out='Run the training command again with another --workdir.',
  )


def read(workdir: str | os.PathLike[str]) -> FinishedRun:
  """Reads a run directory.

  Raises:
    errors.InputError: it is incomplete, was written by another version, or its
      files belong to different runs.
  """
  path = pathlib.Path(workdir)
  with damage(path):
    return _read(path)


def _read(path):
  config = workdir_lib.read_config(path)
  results = workdir_lib.read_metrics(path)
  version = results.get('versions', {}).get('mtnet_jax')
  if version not in _READABLE:
    raise errors.InputError(
      f'{path} was made by mtnet_jax {version}, but this is'
      f' {mtnet_jax.__version__}, which reads runs of'
      f' {" and ".join(_READABLE)}: use that version, or train again.'
    )
  records = read_csv(path / 'records.csv')
  histories = _histories(read_csv(path / 'train_log.csv'))
  run = FinishedRun(path, config, results, records, histories)
  _check(run)
  nets.make_nets(config)  # Raises for fields that no network has.
  return run


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads a table as a dict per row, with columns under their current names.

  Returns:
    Dicts of numbers, strings, booleans, and None for empty cells.

  Raises:
    errors.InputError: the file cannot be read, or is damaged.
  """
  try:
    text = files.read_bytes(path).decode('utf-8')
    rows = list(csv.DictReader(io.StringIO(text, newline=''), strict=True))
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read ({error.strerror}): the run directory is'
      ' incomplete; run its training command with another --workdir.'
    ) from error
  except (csv.Error, UnicodeDecodeError) as error:
    raise errors.InputError(f'{path} is damaged: {error}.') from error
  if not rows or any(None in row or None in row.values() for row in rows):
    raise errors.InputError(
      f'{path} is damaged: it is empty, or cut off in a row.'
    )
  return [
    {_RENAMED.get(key, key): _value(key, text) for key, text in row.items()}
    for row in rows
  ]


def _value(key, text):
  # Identifiers stay strings, even if they look like numbers.
  if key.endswith(('_id', '_uid')) or key == 'stage':
    return text
  if text in ('', 'True', 'False'):
    return {'': None, 'True': True, 'False': False}[text]
  for number in (int, float):
    try:
      return number(text)
    except ValueError:
      continue
  return text


def _histories(
  rows: list[dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
  histories: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    # Columns that only other stages have are empty in this stage's rows.
    row = {key: value for key, value in row.items() if value is not None}
    # Without a column of stages it is 'None', which no config trains.
    histories.setdefault(str(row.get('stage')), []).append(row)
  return histories


def _check(run):
  path, config, results = run.path, run.config, run.results
  simulated = results['simulated']

  def mixed(what):
    return errors.InputError(
      f'{path} is mixed up: {what}. Its files belong to different runs; run the'
      ' training command again with another --workdir.'
    )

  for key, expected in (
    ('dataset', config.dataset.name),
    ('seed', config.seed),
    ('variant', config.variant),
  ):
    if results.get(key) != expected:
      raise mixed(
        f'{key} is {expected} in config.json and {results.get(key)} in'
        ' metrics.json'
      )
  for name, rows in (
    ('records.csv', run.records),
    ('train_log.csv', sum(run.histories.values(), [])),
  ):
    if {row.get('simulated') for row in rows} != {simulated}:
      raise mixed(f"{name} and metrics.json differ in 'simulated'")
  foreign = run.histories.keys() - set(nets.names(config))
  if foreign:
    raise mixed(
      f'train_log.csv has {len(foreign)} stages that config.json does not'
      f' train, such as {str(sorted(map(str, foreign))[0])[:40]!r}'
    )
  for stage in nets.names(config):
    wanted = config.get(f'{stage}_stage', {}).get('epochs')
    found = len(run.histories.get(stage, []))
    if wanted is not None and found != wanted:
      raise errors.InputError(
        f'{path}/train_log.csv is incomplete: {found} of {wanted} epochs of the'
        f' {stage} stage. Run the training command with another --workdir.'
      )
  _check_metrics(run, mixed)


def _check_metrics(run, mixed):
  """Raises unless the metrics follow from the records."""
  try:
    summary = scores.summarise(
      run.records,
      diameter_model=run.results['diameter_only_model'],
      seed=run.config.seed,
    )
  except (KeyError, TypeError, ValueError) as error:
    raise errors.InputError(
      f'{run.path}/records.csv is damaged, or of another version:'
      f' {error!r:.200}.'
    ) from error
  stored = dict(_leaves(run.results['test']))
  found = dict(_leaves(summary))
  lacking = sorted(found.keys() - stored.keys())
  if lacking:
    raise errors.InputError(
      f'{run.path} was made by another mtnet_jax: its metrics.json lacks'
      f' {lacking[0]}. Use that version, or train again with this one.'
    )
  for key in stored.keys() | found.keys():
    if not _same(stored.get(key), found.get(key)):
      raise mixed(
        f'{key} is {stored.get(key)} in metrics.json, and {found.get(key)} from'
        ' records.csv'
      )


def _leaves(tree, path=()):
  """Yields ('segmentation.fine.dice.value', number) for every leaf."""
  items = enumerate(tree) if isinstance(tree, list) else tree.items()
  for key, value in items:
    if isinstance(value, (dict, list)):
      yield from _leaves(value, (*path, str(key)))
    else:
      yield '.'.join((*path, str(key))), value


def _same(left, right):
  if left is None or right is None:
    return left is right
  return abs(left - right) <= _TOLERANCE
