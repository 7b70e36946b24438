"""The run directory: claims and locks it, and reads what a run left there.

config.json  metrics.json  records.csv  seen.csv  train_log.csv
tb/  report/  evaluations/
checkpoints/{coarse,class,fine}/, or the stages of another strategy
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import hashlib
import json
import os
import pathlib
import re
from typing import Any

import ml_collections

from mtnet_jax.storage import config_values
from mtnet_jax.storage import configs
from mtnet_jax.storage import environment
from mtnet_jax.storage import files
from mtnet_jax.storage import locks
from mtnet_jax.storage import size_limits
from mtnet_jax.storage import tensors
from mtnet_jax.storage import texts
from mtnet_jax.system import errors

# Keys of a config that are needed to rebuild the networks and to predict. Every
# version has written them.
_NEEDED = (
  'dataset',
  'seg_net',
  'class_net',
  'stages',
  'strategy',
  'image_size',
  'window',
  'dtype',
  'matmul_precision',
  'coarse_mask',
  'eval_batch_size',
)
# A config.json has two kilobytes; parsing a megabyte of groups takes seconds.
_MAX_CONFIG_BYTES = 1 << 20
# What a run writes after its config.json.
_RESULTS = (
  'metrics.json',
  'records.csv',
  'checkpoints',
  'train_log.csv',
  'report',
  'seen.csv',
)
# Values of a config that metrics.json repeats.
_IN_METRICS = (
  'seed',
  'variant',
  'strategy',
  'matmul_precision',
  'coarse_mask',
)
# Values of config.json and metrics.json that cards, reports and tables show.
_CONFIG_TYPES = {
  'variant': (str, 'a string'),
  'seed': (int, 'a whole number'),
  'start_from': (str, 'a string'),
  'start_from_dataset': (str, 'a string'),
}
_METRICS_TYPES = {
  'simulated': (bool, 'true or false'),
  'dataset': (str, 'a string'),
  'variant': (str, 'a string'),
  'seed': (int, 'a whole number'),
  'versions': (dict, 'a group of strings'),
  'note': (str, 'a string'),
  'left_out': (list, 'a list of strings'),
  'test': (dict, 'a group of values'),
}


def claim(
  workdir: str | os.PathLike[str],
  config: ml_collections.ConfigDict,
  *,
  changed: Collection[str] | None = None,
) -> None:
  """Makes `workdir` the run directory of a config, or checks that it is.

  Args:
    workdir: the run directory.
    config: config of the run.
    changed: as in `configs.differences`.

  Raises:
    errors.InputError: the directory cannot be written, or belongs to a sweep,
      to a run with another config (the message lists the differences), or to a
      run whose config.json is missing.
  """
  path = pathlib.Path(workdir, 'config.json')
  now = json.loads(config.to_json())
  if path.exists():
    then = configs.upgraded(_read(path, 'seed'))
    found = list(
      configs.differences(then, configs.upgraded(now), changed=changed)
    )
    if found:
      raise errors.InputError(
        f'{workdir} holds a run with another config: {"; ".join(found)}.'
        ' Choose another --workdir, or delete that one.'
      )
  elif (path.parent / 'sweep.json').exists():
    raise errors.InputError(
      f'{workdir} is the directory of a sweep: choose another --workdir.'
    )
  elif found := [name for name in _RESULTS if (path.parent / name).exists()]:
    raise errors.InputError(
      f'{workdir} holds the {found[0]} of a run, but its config.json is'
      ' missing: put it back, or choose another --workdir.'
    )
  files.make_folder(workdir)
  if not path.exists():
    files.write_json(path, now)


def read_config(workdir: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """Reads the config of a run, locked.

  Raises:
    errors.InputError: it is missing or damaged, a value cannot be used, or its
      networks are too large.
  """
  path = pathlib.Path(workdir, 'config.json')
  if not path.exists():
    raise errors.InputError(
      f'{workdir} is not a run directory (it has no config.json): train one'
      f' with `python -m mtnet_jax.main --workdir={workdir}'
      ' --config=configs/mtnet.py:demo`.'
    )
  if path.stat().st_size > _MAX_CONFIG_BYTES:
    raise errors.InputError(
      f'{path} has more than {_MAX_CONFIG_BYTES >> 20} MiB, which no config'
      ' has: train again in another --workdir, or get the model again.'
    )
  tree = configs.upgraded(_read(path, *_NEEDED))
  for key in ('dataset', 'seg_net', 'class_net'):
    if not isinstance(tree[key], dict):
      raise errors.InputError(
        f'{path} is damaged: its {key} is not a group of values. Train again'
        ' in another --workdir.'
      )
  texts.check_tree(tree, path)
  texts.check_types(tree, _CONFIG_TYPES, path)
  config_values.check_stored(tree, str(path))
  size_limits.check(tree, where=str(path))
  return ml_collections.ConfigDict(tree).lock()


def read_metrics(workdir: str | os.PathLike[str]) -> dict[str, Any]:
  """Reads metrics.json of a finished run.

  Raises:
    errors.InputError: the run is not finished, or the file is damaged.
  """
  path = pathlib.Path(workdir, 'metrics.json')
  if not path.exists():
    raise errors.InputError(
      f'{workdir} is not finished (it has no metrics.json): run its'
      ' training command again, which continues where it stopped.'
    )
  tree = _read(path, 'diameter_only_model', 'simulated', 'test')
  texts.check_tree(tree, path)
  texts.check_types(tree, _METRICS_TYPES, path)
  if 'license' in tree:
    texts.check_license(tree['license'], path)
  return tree


def check_results(
  results: Mapping[str, Any],
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
) -> None:
  """Checks that metrics.json and config.json belong to the same run.

  Args:
    results: contents of metrics.json, from `read_metrics`.
    config: config of the run.
    workdir: the run directory, for the message.

  Raises:
    errors.InputError: they belong to different runs.
  """
  expected = {'dataset': config.dataset.name}
  expected |= {key: config[key] for key in _IN_METRICS}
  for key, value in expected.items():
    found = results.get(key, value)
    if found != value:
      raise errors.InputError(
        f'{workdir}/metrics.json is from another run than its config.json:'
        f' {key} was {str(found)[:80]} there and is {value} here. Put back the'
        ' files that belong there, or choose another --workdir.'
      )


def run_id(workdir: str | os.PathLike[str]) -> str:
  """Returns a short hash of a finished run's config and results.

  It does not depend on where the run directory is.

  Raises:
    errors.InputError: the run is not finished.
  """
  digest = hashlib.sha256()
  for name in ('config.json', 'metrics.json'):
    path = pathlib.Path(workdir, name)
    try:
      digest.update(hashlib.sha256(files.read_bytes(path)).digest())
    except OSError as error:
      raise errors.InputError(
        f'{path} cannot be read: {error.strerror}.'
      ) from error
  return digest.hexdigest()[:16]


def _read(path, *keys):
  tree = files.read_json(path)
  tree = tree if isinstance(tree, dict) else {}
  if not tree.keys() >= set(keys):
    raise errors.InputError(
      f'{path} lacks {", ".join(key for key in keys if key not in tree)}: it'
      ' is damaged, or of another version of mtnet_jax. Train again in another'
      ' --workdir, or use the version that wrote it.'
    )
  return tree


def checkpoint_dir(workdir: str | os.PathLike[str], stage: str) -> pathlib.Path:
  """Returns the directory of a stage's checkpoints."""
  return pathlib.Path(workdir, 'checkpoints', stage)


def evaluation_dir(
  workdir: str | os.PathLike[str],
  dataset: str,
  split: str,
  *,
  limit: int = 0,
  members: int = 1,
  symmetries: bool = False,
) -> pathlib.Path:
  """Returns the directory for the results of an evaluation.

  Args:
    workdir: the run directory; the first one if several runs are averaged.
    dataset: name of the dataset.
    split: 'train', 'validation', 'test' or 'all'.
    limit: maximum number of nodules; 0 for all.
    members: number of runs that are averaged.
    symmetries: whether rotations and reflections are averaged.
  """
  # A policy in the name has characters that folder names should not have.
  name = re.sub(r'[^\w.]+', '-', f'{dataset}-{split}')
  if limit:
    name += f'-limit{limit}'
  if members > 1:
    name += f'-ensemble{members}'
  if symmetries:
    name += '-symmetries'
  return pathlib.Path(workdir, 'evaluations', name)


def load_variables(
  workdir: str | os.PathLike[str], names: Iterable[str]
) -> dict[str, Any]:
  """Loads the best variables of a run's networks.

  Args:
    workdir: the run directory.
    names: names of the stages, a subset of `nets.names` of the run's config.

  Returns:
    Stage name -> {'params', 'batch_stats'} of NumPy arrays.

  Raises:
    errors.InputError: a stage has no checkpoint yet, or the checkpoint is from
      another run or holds values that are not finite.
  """
  # This imports Orbax, which takes long; a bundle is read without it.
  from mtnet_jax.storage import checkpoint

  config = pathlib.Path(workdir, 'config.json')
  variables = {}
  for stage in names:
    directory = checkpoint_dir(workdir, stage)
    best = checkpoint.load_best(directory)
    if best is None:
      raise errors.InputError(
        f'{directory} has no checkpoint: the run is not finished; run its'
        ' training command again, which continues where it stopped.'
      )
    variables[stage], meta = best
    configs.check_stage(
      files.read_json(config),
      meta.get('config'),
      stage=stage,
      where=str(directory),
    )
    tensors.check_finite(
      variables[stage], directory, way_out='Train in another --workdir.'
    )
  return variables


def header(
  config: ml_collections.ConfigDict, *, dataset: str, simulated: bool
) -> dict[str, Any]:
  """Returns the first entries of every metrics.json."""
  return {
    'dataset': dataset,
    'simulated': simulated,
    **{key: config[key] for key in _IN_METRICS},
    'versions': environment.versions(),
    'hardware': environment.hardware(),
  }


def lock(
  directory: str | os.PathLike[str],
) -> contextlib.AbstractContextManager[None]:
  """Locks an existing directory against other processes.

  Returns:
    The context manager of `locks.exclusive`.
  """
  return locks.exclusive(pathlib.Path(directory, '.lock'), '--workdir')
