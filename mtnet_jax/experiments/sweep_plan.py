"""Plans a sweep: the configs of its points, and which of them share a stage.

A sweep's directory contains

    sweep.json                        the configs of all points
    POINT/                            a run directory, see `storage.workdir`
    POINT/foldK/                      or a run directory for each test fold
    report/{index.html,*.csv,*.png}   the comparison of the points
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
import pathlib
import shutil
from typing import Any
from typing import NamedTuple

from flax import traverse_util
import ml_collections

import mtnet_jax
from mtnet_jax.models import strategies
from mtnet_jax.storage import configs
from mtnet_jax.storage import files
from mtnet_jax.storage import workdir as workdir_lib
from mtnet_jax.system import errors

FORMAT = 1
_FILE = 'sweep.json'
# Config key of a hyperparameter -> its symbol, in the paper's order.
AXES = {
  'rank_loss.top_k': 'K',
  'rank_loss.margin': 'margin',
  'rank_loss.weight': 'gamma',
}


class Point(NamedTuple):
  """One run of a sweep.

  Attributes:
    name: of the point; runs of one point on several test folds share it.
    title: display name; '' if the name of the network is enough.
    overrides: nested dict of the fields that differ from the base config.
    config: of the run.
    fold: the test fold, if the sweep has test folds; None otherwise.
    changed: keys of the config whose values differ from the file of the base
      config, see `configs.differences`.
  """

  name: str
  title: str
  overrides: dict[str, Any]
  config: ml_collections.ConfigDict
  fold: int | None = None
  changed: frozenset[str] | None = None

  @property
  def folder(self) -> str:
    """The run directory, relative to the directory of the sweep."""
    if self.fold is None:
      return self.name
    return f'{self.name}/fold{self.fold}'


def points(
  config: ml_collections.ConfigDict,
  *,
  changed: Collection[str] | None = None,
) -> list[Point]:
  """Returns the runs of a sweep, sorted by name.

  In a sweep of the kind 'table', the reference comes first.

  Args:
    config: of `configs/ablations.py` or `configs/baselines.py`.
    changed: keys of the config whose values differ from its file, see
      `configs.differences`.

  Returns:
    A run per point, or per point and test fold.

  Raises:
    errors.InputError: an override names no field of the base config, the
      reference is not a point, a test fold does not exist, or no stage that is
      trained has an output to compare.
  """
  if config.reference not in config.points:
    raise errors.InputError(
      f'config.reference={config.reference!r} is not a point of {config.name}:'
      f' choose one of {", ".join(config.points)}.'
    )
  _check_outputs(config)
  titles = config.get('titles', {})
  runs = []
  names = sorted(
    config.points,
    key=lambda name: (
      config.kind == 'table' and name != config.reference,
      name,
    ),
  )
  for name in names:
    overrides = config.points[name]
    run_config = config.base.copy_and_resolve_references()
    try:
      run_config.update(overrides)
    except (KeyError, AttributeError, TypeError) as error:
      raise errors.InputError(
        f'point {name} of {config.name} does not fit its base: {error}'
      ) from error
    overrides = overrides.to_dict()
    title = titles.get(name, describe(overrides) or name.replace('_', ' '))
    point = Point(
      name, title, overrides, run_config, changed=_changed(overrides, changed)
    )
    runs.extend(_split_by_fold(point, config.get('test_folds', ())))
  return runs


def _check_outputs(config):
  outputs, stages = config.get('outputs', ()), config.base.stages
  known = [stage for stage in strategies.STAGES if stage != 'joint']
  if not set(outputs) <= set(known):
    raise errors.InputError(
      f'config.outputs={tuple(outputs)} must be some of {", ".join(known)}.'
    )
  if outputs and set(stages).isdisjoint({*outputs, 'joint'}):
    raise errors.InputError(
      f'config.base.stages={tuple(stages)} trains none of'
      f' config.outputs={tuple(outputs)}: choose other stages or other outputs.'
    )


def _changed(overrides, changed):
  """Returns a point's changed keys, from the sweep's and its overrides."""
  if changed is None:
    return None
  base_keys = {key.removeprefix('base.') for key in changed}
  return frozenset(base_keys | dict(leaves(overrides)).keys())


def _split_by_fold(point, folds):
  if not folds:
    return [point]
  if len(set(folds)) < len(folds) or not set(folds) <= set(range(5)):
    raise errors.InputError(
      f'config.test_folds={tuple(folds)} must be different folds from 0 to 4.'
    )
  if 'dataset.rotate_folds' in dict(leaves(point.overrides)):
    raise errors.InputError(
      f'point {point.name} rotates the folds itself: remove'
      ' config.test_folds, or its dataset.rotate_folds.'
    )
  runs = []
  for fold in folds:
    config = point.config.copy_and_resolve_references()
    with config.unlocked():
      # Without rotation, fold 4 is the test fold.
      config.dataset.rotate_folds = (fold + 1) % 5
    runs.append(point._replace(config=config, fold=fold))
  return runs


def once_each(plan: Iterable[Point]) -> list[Point]:
  """Returns the first run of each point, regardless of the test fold."""
  first: dict[str, Point] = {}
  for point in plan:
    first.setdefault(point.name, point)
  return list(first.values())


def leaves(overrides: Mapping[str, Any]) -> list[tuple[str, Any]]:
  """Returns (dotted key, value) of every override, those in `AXES` first."""
  order = list(AXES)
  return sorted(
    traverse_util.flatten_dict(overrides, sep='.').items(),
    key=lambda pair: order.index(pair[0]) if pair[0] in AXES else len(order),
  )


def describe(overrides: Mapping[str, Any]) -> str:
  """Formats overrides, for example as 'K = 20, margin = 0.3'."""
  return ', '.join(
    f'{AXES.get(key, key.rpartition(".")[2])} = {value}'
    for key, value in leaves(overrides)
  )


def groups(plan: Iterable[Point]) -> list[list[Point]]:
  """Groups the runs that can share a trained coarse net, in order."""
  by_key: dict[str, list[Point]] = {}
  for point in plan:
    by_key.setdefault(_coarse_key(point.config), []).append(point)
  return list(by_key.values())


def _coarse_key(config):
  tree = json.loads(config.to_json())
  for key in configs.NOT_OF_THE_COARSE_STAGE:
    tree.pop(key, None)
  return json.dumps(tree, sort_keys=True)


def copy_coarse_stage(
  source_run: str | os.PathLike[str], workdir: str | os.PathLike[str]
) -> None:
  """Copies the trained coarse stage of another run, unless there is one.

  Args:
    source_run: directory of a finished run whose coarse stage has the same
      config.
    workdir: the run directory; the caller holds its lock.
  """
  source = workdir_lib.checkpoint_dir(source_run, 'coarse')
  target = workdir_lib.checkpoint_dir(workdir, 'coarse')
  if target.exists() or not source.exists():
    return
  with files.new_folder(target) as staged:
    shutil.copytree(source, staged, dirs_exist_ok=True)


def claim(
  directory: str | os.PathLike[str],
  config: ml_collections.ConfigDict,
  plan: Sequence[Point],
) -> None:
  """Makes the directory of a sweep, or checks that it belongs to this sweep.

  Args:
    directory: of the sweep.
    config: of the sweep.
    plan: from `points`.

  Raises:
    errors.InputError: the directory holds something else, or another sweep; the
      message says how it differs.
  """
  directory = pathlib.Path(directory)
  path = directory / _FILE
  current = {
    'format': FORMAT,
    'mtnet_jax': mtnet_jax.__version__,
    'name': config.name,
    'reference': config.reference,
    'points': {
      point.folder: json.loads(point.config.to_json()) for point in plan
    },
  }
  # List the directory before looking for the file: another process may write
  # it in between.
  others = directory.exists() and any(
    not other.name.startswith('.') for other in directory.iterdir()
  )
  if path.exists():
    stored = files.read_json(path)
    with errors.of_wrong_values(
      f'{path} is damaged',
      way_out='Choose another --workdir, or delete this one.',
    ):
      stored['points'] = {
        name: configs.upgraded(point)
        for name, point in stored.get('points', {}).items()
      }
      differences = list(_differences(stored, current, plan))
    if differences:
      more = f' and {len(differences) - 3} more' if len(differences) > 3 else ''
      raise errors.InputError(
        f'{directory} holds another sweep: {"; ".join(differences[:3])}{more}.'
        ' Choose another --workdir, or delete this one.'
      )
    return
  if others:
    raise errors.InputError(
      f'{directory} is not a sweep (it has no {_FILE}), and it is not empty:'
      ' choose another --workdir.'
    )
  files.make_folder(directory)
  files.write_json(path, current)


def _differences(stored, current, plan):
  """Yields how two contents of sweep.json differ, see `configs.differences`."""
  before, after = stored.pop('points'), current.pop('points')
  yield from configs.differences(stored, current)
  for name in sorted(before.keys() - after.keys()):
    yield f'point {name} no longer exists'
  for point in plan:
    if point.folder not in before:
      yield f'point {point.folder} is new'
      continue
    prefix = f'points.{point.folder}.'
    changed = point.changed
    if changed is not None:
      changed = {prefix + key for key in changed}
    yield from configs.differences(
      before[point.folder],
      after[point.folder],
      prefix,
      changed=changed,
    )
