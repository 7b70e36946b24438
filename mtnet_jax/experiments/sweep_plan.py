"""The points of a sweep: their configs, and what they may share.

DIR/sweep.json                        what was asked for
DIR/POINT/                            a run directory, see `workdir`
DIR/POINT/foldK/                      or one for each test fold
DIR/report/{index.html,*.csv,*.png}   the points beside each other
"""

import json
import pathlib
import shutil
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
# What the paper calls what it varies, in its order.
AXES = {
  'rank_loss.top_k': 'K',
  'rank_loss.margin': 'margin',
  'rank_loss.weight': 'gamma',
}


class Point(NamedTuple):
  """One run of a sweep.

  Attributes:
    name: of the point, which the runs of several test folds share.
    title: what the report calls it; '' where the name of the network says it.
    overrides: nested dict of what differs from the base.
    config: of the run.
    fold: that it is tested on; None where the config alone says so.
    changed: keys of the config that are not as in the file of the base, as in
      `configs.differences`.
  """

  name: str
  title: str
  overrides: dict
  config: ml_collections.ConfigDict
  fold: int | None = None
  changed: frozenset | None = None

  @property
  def folder(self):
    """Of the run, in that of the sweep."""
    if self.fold is None:
      return self.name
    return f'{self.name}/fold{self.fold}'


def points(config, *, changed=None):
  """The runs of a sweep's config by name; in a table the reference is first.

  Args:
    config: of `configs/ablations.py` or `configs/baselines.py`.
    changed: keys of it that are not as in its file, as in
      `configs.differences`.

  Returns:
    A list of `Point`, several of one name where there are test folds.

  Raises:
    errors.InputError: an override is of no field, the reference of no point, a
      test fold of no fold, or an output of no stage that is trained.
  """
  if config.reference not in config.points:
    raise errors.InputError(
      f'config.reference={config.reference!r} is no point of {config.name}:'
      f' choose one of {", ".join(config.points)}.'
    )
  _check_outputs(config)
  titles = config.get('titles', {})
  found = []
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
    found.extend(_of_each_fold(point, config.get('test_folds', ())))
  return found


def _check_outputs(config):
  shown, stages = config.get('outputs', ()), config.base.stages
  known = [stage for stage in strategies.STAGES if stage != 'joint']
  if not set(shown) <= set(known):
    raise errors.InputError(
      f'config.outputs={tuple(shown)} must be of {", ".join(known)}.'
    )
  if shown and set(stages).isdisjoint({*shown, 'joint'}):
    raise errors.InputError(
      f'config.base.stages={tuple(stages)} leaves nothing to compare of'
      f' config.outputs={tuple(shown)}: give other stages, or other outputs.'
    )


def _changed(overrides, changed):
  """Those of a point, of those of the sweep and the point's own."""
  if changed is None:
    return None
  of_base = {key.removeprefix('base.') for key in changed}
  return frozenset(of_base | dict(leaves(overrides)).keys())


def _of_each_fold(point, folds):
  if not folds:
    return [point]
  if len(set(folds)) < len(folds) or not set(folds) <= set(range(5)):
    raise errors.InputError(
      f'config.test_folds={tuple(folds)} are no folds: give some of 0 to 4,'
      ' each once.'
    )
  if 'dataset.rotate_folds' in dict(leaves(point.overrides)):
    raise errors.InputError(
      f'point {point.name} rotates the folds itself: leave config.test_folds'
      ' out.'
    )
  runs = []
  for fold in folds:
    config = point.config.copy_and_resolve_references()
    with config.unlocked():
      # Nothing is rotated where fold 4 is tested.
      config.dataset.rotate_folds = (fold + 1) % 5
    runs.append(point._replace(config=config, fold=fold))
  return runs


def once_each(plan):
  """The points of a plan without regard to folds: the first run of each."""
  first = {}
  for point in plan:
    first.setdefault(point.name, point)
  return list(first.values())


def leaves(overrides):
  """(dotted key, value) of every override, those with names in `AXES` first."""
  order = list(AXES)
  return sorted(
    traverse_util.flatten_dict(overrides, sep='.').items(),
    key=lambda pair: order.index(pair[0]) if pair[0] in AXES else len(order),
  )


def describe(overrides):
  """'K = 20, margin = 0.3'."""
  return ', '.join(
    f'{AXES.get(key, key.rpartition(".")[2])} = {value}'
    for key, value in leaves(overrides)
  )


def groups(plan):
  """Points that can share a trained coarse net, together.

  Returns:
    A list of lists of `Point`, in order.
  """
  by_key = {}
  for point in plan:
    by_key.setdefault(_coarse_key(point.config), []).append(point)
  return list(by_key.values())


def _coarse_key(config):
  tree = json.loads(config.to_json())
  for key in configs.NOT_OF_THE_COARSE_STAGE:
    tree.pop(key, None)
  return json.dumps(tree, sort_keys=True)


def copy_coarse_stage(donor, workdir):
  """Copies the trained coarse stage of another run, unless there is one.

  Args:
    donor: directory of a finished run whose coarse stage has the same config.
    workdir: the run directory, in which nobody else works.
  """
  source = workdir_lib.checkpoint_dir(donor, 'coarse')
  target = workdir_lib.checkpoint_dir(workdir, 'coarse')
  if target.exists() or not source.exists():
    return
  with files.new_folder(target) as staged:
    shutil.copytree(source, staged, dirs_exist_ok=True)


def claim(directory, config, plan):
  """Makes a directory this sweep's, or checks that it is.

  Raises:
    errors.InputError: it holds something else, or another sweep; the message
      says in what it differs.
  """
  directory = pathlib.Path(directory)
  path = directory / _FILE
  now = {
    'format': FORMAT,
    'mtnet_jax': mtnet_jax.__version__,
    'name': config.name,
    'reference': config.reference,
    'points': {
      point.folder: json.loads(point.config.to_json()) for point in plan
    },
  }
  # Before the file is looked for, which another process may just write.
  others = directory.exists() and any(
    not other.name.startswith('.') for other in directory.iterdir()
  )
  if path.exists():
    then = files.read_json(path)
    with errors.of_wrong_values(
      f'{path} is damaged',
      way_out='Choose another --workdir, or delete that one.',
    ):
      then['points'] = {
        name: configs.upgraded(point)
        for name, point in then.get('points', {}).items()
      }
      found = list(_differences(then, now, plan))
    if found:
      more = f' and {len(found) - 3} more' if len(found) > 3 else ''
      raise errors.InputError(
        f'{directory} holds another sweep: {"; ".join(found[:3])}{more}. Choose'
        ' another --workdir, or delete that one.'
      )
    return
  if others:
    raise errors.InputError(
      f'{directory} is no sweep (it has no {_FILE}), and not empty: choose'
      ' another --workdir.'
    )
  files.make_folder(directory)
  files.write_json(path, now)


def _differences(then, now, plan):
  """As `configs.differences`, of two contents of sweep.json."""
  before, after = then.pop('points'), now.pop('points')
  yield from configs.differences(then, now)
  for name in sorted(before.keys() - after.keys()):
    yield f'point {name} is not there any more'
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
