"""The run directory: what is in it, whether it is this run's, and who writes.

config.json  metrics.json  records.csv  seen.csv  train_log.csv  tb/  report/
evaluations/
checkpoints/{coarse,class,fine}/, or of the stages of another strategy
"""

import hashlib
import importlib.metadata
import json
import pathlib
import platform
import re

import jax
import ml_collections

import mtnet_jax
from mtnet_jax.storage import config_values
from mtnet_jax.storage import configs
from mtnet_jax.storage import files
from mtnet_jax.storage import locks
from mtnet_jax.storage import size_limits
from mtnet_jax.storage import tensors
from mtnet_jax.storage import texts
from mtnet_jax.system import devices
from mtnet_jax.system import errors

# Keys of a config without which no network can be rebuilt, or predict. Every
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
# Of a config.json, which has two kilobytes; a megabyte of groups takes seconds.
_MAX_CONFIG_BYTES = 1 << 20
# What a run leaves, after its config.json.
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
# What cards, reports and tables show of config.json and metrics.json.
_CONFIG_TYPES = {
  'variant': (str, 'a text'),
  'seed': (int, 'a whole number'),
  'start_from': (str, 'a text'),
  'start_from_dataset': (str, 'a text'),
}
_METRICS_TYPES = {
  'simulated': (bool, 'true or false'),
  'dataset': (str, 'a text'),
  'variant': (str, 'a text'),
  'seed': (int, 'a whole number'),
  'versions': (dict, 'a group of texts'),
  'note': (str, 'a text'),
  'left_out': (list, 'a list of texts'),
  'test': (dict, 'a group of values'),
}
_PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def claim(workdir, config, *, changed=None):
  """Makes `workdir` this config's run directory, or checks that it is.

  Args:
    workdir: the run directory.
    config: of the run.
    changed: as in `configs.differences`.

  Raises:
    errors.InputError: it cannot be written, or another config ran there; the
      message lists the differences. Or a run was there whose config is gone.
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
        f'{workdir} holds a run of another config: {"; ".join(found)}.'
        ' Choose another --workdir, or delete that one.'
      )
  elif (path.parent / 'sweep.json').exists():
    raise errors.InputError(
      f'{workdir} is the directory of a sweep: choose another --workdir.'
    )
  elif found := [name for name in _RESULTS if (path.parent / name).exists()]:
    raise errors.InputError(
      f'{workdir} holds the {found[0]} of a run, and no config.json that says'
      ' of which: put that back, or choose another --workdir.'
    )
  files.make_folder(workdir)
  if not path.exists():
    files.write_json(path, now)


def read_config(workdir):
  """The config of a run.

  Raises:
    errors.InputError: there is none, it is damaged, its values cannot be used,
      or its networks are larger than any machine can hold.
  """
  path = pathlib.Path(workdir, 'config.json')
  if not path.exists():
    raise errors.InputError(
      f'{workdir} is no run directory (it has no config.json): train one'
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
        f'{path} is damaged: its {key} is no group of values. Train again in'
        ' another --workdir.'
      )
  texts.check_tree(tree, path)
  texts.check_types(tree, _CONFIG_TYPES, path)
  config_values.check_stored(tree, str(path))
  size_limits.check(tree, where=str(path))
  return ml_collections.ConfigDict(tree).lock()


def read_metrics(workdir):
  """metrics.json of a finished run.

  Raises:
    errors.InputError: the run is not finished, or the file is damaged.
  """
  path = pathlib.Path(workdir, 'metrics.json')
  if not path.exists():
    raise errors.InputError(
      f'{workdir} is not finished (it has no metrics.json): give its'
      ' training command again, it goes on where it stopped.'
    )
  tree = _read(path, 'diameter_only_model', 'simulated', 'test')
  texts.check_tree(tree, path)
  texts.check_types(tree, _METRICS_TYPES, path)
  if 'license' in tree:
    texts.check_license(tree['license'], path)
  return tree


def check_results(results, config, workdir):
  """Checks that metrics.json and the config beside it are of one run.

  Args:
    results: of `read_metrics`.
    config: the run's.
    workdir: the run directory, for the message.

  Raises:
    errors.InputError: they are not.
  """
  expected = {'dataset': config.dataset.name}
  expected |= {key: config[key] for key in _IN_METRICS}
  for key, value in expected.items():
    found = results.get(key, value)
    if found != value:
      raise errors.InputError(
        f'{workdir}/metrics.json is of another run than the config.json beside'
        f' it: {key} was {str(found)[:80]} there and is {value} here. Put back'
        ' what belongs there, or choose another --workdir.'
      )


def run_id(workdir):
  """Short hash of a finished run, wherever it lies: of config and results.

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


def checkpoint_dir(workdir, stage):
  """Where a stage keeps its checkpoints."""
  return pathlib.Path(workdir, 'checkpoints', stage)


def evaluation_dir(
  workdir, dataset, split, *, limit=0, members=1, symmetries=False
):
  """Where the results of an evaluation go.

  Args:
    workdir: of the run, of several the first one's.
    dataset: name of the dataset.
    split: 'train', 'validation' or 'test'.
    limit: most nodules; 0 for all.
    members: how many runs are averaged.
    symmetries: whether rotations and reflections are.
  """
  # A policy in the name has characters that no folder should have.
  name = re.sub(r'[^\w.]+', '-', f'{dataset}-{split}')
  if limit:
    name += f'-limit{limit}'
  if members > 1:
    name += f'-ensemble{members}'
  if symmetries:
    name += '-symmetries'
  return pathlib.Path(workdir, 'evaluations', name)


def load_variables(workdir, names):
  """The best variables of networks.

  Args:
    workdir: the run directory.
    names: of their stages; those of a run are `nets.names` of its config.

  Returns:
    Stage name -> {'params', 'batch_stats'} of NumPy arrays.

  Raises:
    errors.InputError: a stage has no checkpoint yet, or one of another run, or
      of values that are not finite.
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
        f'{directory} has no checkpoint: the run is not finished; give its'
        ' training command again, it goes on where it stopped.'
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


def header(config, *, dataset, simulated):
  """The first entries of every metrics.json."""
  return {
    'dataset': dataset,
    'simulated': simulated,
    **{key: config[key] for key in _IN_METRICS},
    'versions': versions(),
    'hardware': _hardware(),
  }


def versions():
  """What computes here: name -> version."""
  return {
    'mtnet_jax': mtnet_jax.__version__,
    'python': platform.python_version(),
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
  }


def _hardware():
  device = jax.devices()[0]
  return {
    'platform': device.platform,
    'kind': device.device_kind,
    'devices': devices.device_count(),
    'processes': jax.process_count(),
  }


def lock(directory):
  """Keeps other processes out of a directory meanwhile.

  Args:
    directory: an existing one.

  Returns:
    A context manager, of `locks.exclusive`.
  """
  return locks.exclusive(pathlib.Path(directory, '.lock'), '--workdir')
