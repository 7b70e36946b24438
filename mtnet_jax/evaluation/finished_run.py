"""What a finished run left, read back and checked to belong together."""

import csv
import io
import pathlib
from typing import NamedTuple

import ml_collections

import mtnet_jax
from mtnet_jax.evaluation import scores
from mtnet_jax.models import nets
from mtnet_jax.storage import files
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors

# Between the same numbers, computed on two machines.
_TOLERANCE = 1e-6
# Columns of older files by their names of today.
_RENAMED = {'malignancy': 'malignancy_rating_mean'}


class FinishedRun(NamedTuple):
  """A run directory.

  Attributes:
    path: where it is.
    config: config.json.
    results: metrics.json.
    records: a dict per test nodule, as of `records.make_records`.
    histories: stage name -> a dict per epoch, as of `trainer.Trainer.run`.
  """

  path: pathlib.Path
  config: ml_collections.ConfigDict
  results: dict
  records: list
  histories: dict


def damage(path):
  """Turns errors that a damaged run causes into `errors.InputError`.

  Args:
    path: the run directory.
  """
  return errors.of_wrong_values(
    f'{path} is damaged, or of another version',
    way_out='Give the training command again with another --workdir.',
  )


def read(workdir):
  """Reads a run directory.

  Raises:
    errors.InputError: it is incomplete, of another version, or its files are
      not of one run.
  """
  path = pathlib.Path(workdir)
  with damage(path):
    return _read(path)


def _read(path):
  config = workdir_lib.read_config(path)
  results = workdir_lib.read_metrics(path)
  version = results.get('versions', {}).get('mtnet_jax')
  if version != mtnet_jax.__version__:
    raise errors.InputError(
      f'{path} was made by mtnet_jax {version}, this is'
      f' {mtnet_jax.__version__}: use that version, or train again with this.'
    )
  records = read_csv(path / 'records.csv')
  histories = _histories(read_csv(path / 'train_log.csv'))
  run = FinishedRun(path, config, results, records, histories)
  _check(run)
  nets.make_nets(config)  # It refuses fields that no network has.
  return run


def read_csv(path):
  """A list of dicts of numbers, strings, booleans, and None for nothing.

  Columns that had another name in older versions have that of today.

  Raises:
    errors.InputError: it cannot be read, or is damaged.
  """
  try:
    text = files.read_bytes(path).decode('utf-8')
    rows = list(csv.DictReader(io.StringIO(text, newline=''), strict=True))
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read ({error.strerror}): the run directory is'
      ' incomplete; give its training command with another --workdir.'
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
  # Identifiers stay what they are, even where they look like numbers.
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


def _histories(rows):
  histories = {}
  for row in rows:
    # Columns of other stages are empty in this one's rows.
    row = {key: value for key, value in row.items() if value is not None}
    histories.setdefault(row.get('stage'), []).append(row)
  return histories


def _check(run):
  path, config, results = run.path, run.config, run.results
  simulated = results['simulated']

  def mixed(what):
    return errors.InputError(
      f'{path} is mixed up: {what}. Its files are not of one run; give the'
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
      raise mixed(f'{name} and metrics.json differ in what is simulated')
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
        f' {stage} stage. Give the training command with another --workdir.'
      )
  _check_metrics(run, mixed)


def _check_metrics(run, mixed):
  """metrics.json must follow from records.csv."""
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
      f' {lacking[0]}. Use that version, or train again with this.'
    )
  for key in stored.keys() | found.keys():
    if not _same(stored.get(key), found.get(key)):
      raise mixed(
        f'{key} is {stored.get(key)} in metrics.json, and {found.get(key)} from'
        ' records.csv'
      )


def _leaves(tree, path=()):
  """('segmentation.fine.dice.value', number) of every leaf."""
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
