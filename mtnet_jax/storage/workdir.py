"""The run directory: what is in it, whether it is this run's, and who writes.

config.json  metrics.json  records.csv  seen.csv  train_log.csv  tb/  report/
evaluations/
checkpoints/{coarse,class,fine}/, or of the stages of another strategy
"""

import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import re

import filelock
import jax
import ml_collections

import mtnet_jax
from mtnet_jax.storage import files
from mtnet_jax.storage import size_limits
from mtnet_jax.storage import texts
from mtnet_jax.system import devices
from mtnet_jax.system import errors
from mtnet_jax.system import paths

# Keys that configs had before -> their names of today, in the same group.
_FORMER_KEYS = {
  'looks_per_epoch': 'views_per_image',
  'steps_at_once': 'steps_per_call',
  'rank_loss.most': 'max_top_k',
}
# Keys that a group of configs did not have before, and what was done without. A
# test fails where configs/mtnet.py has a new key that is not here.
_NEW_KEYS = {
  '': {
    'cross_entropy_weight': 0.0,
    'start_from': '',
    'start_from_dataset': '',
    'start_from_sha256': '',
    'weight_average': 0.0,
  },
  'class_net.': {'dropout_rate': 0.0},
  'coarse_stage.': {'weight_decay': 0.0},
  'class_stage.': {'weight_decay': 0.0},
  'fine_stage.': {'weight_decay': 0.0},
  'joint_stage.': {'weight_decay': 0.0},
}
# Keys of a config without which no network can be rebuilt.
_NEEDED = ('dataset', 'seg_net', 'class_net', 'stages', 'strategy')
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
    changed: as in `differences`.

  Raises:
    errors.InputError: it cannot be written, or another config ran there; the
      message lists the differences.
  """
  path = pathlib.Path(workdir, 'config.json')
  now = json.loads(config.to_json())
  if path.exists():
    then = upgraded(_read(path, 'seed'))
    found = list(differences(then, upgraded(now), changed=changed))
    if found:
      raise errors.InputError(
        f'{workdir} holds a run of another config: {"; ".join(found)}.'
        ' Choose another --workdir, or delete that one.'
      )
  files.make_folder(workdir)
  if not path.exists():
    files.write_json(path, now)


def upgraded(tree, group=''):
  """A config as a dict, with the keys that it has today."""
  return {
    **_NEW_KEYS.get(group, {}),
    **{
      _FORMER_KEYS.get(group + key, key): (
        upgraded(value, f'{group}{key}.') if isinstance(value, dict) else value
      )
      for key, value in tree.items()
    },
  }


def differences(then, now, prefix='', *, changed=None):
  """What differs between two configs as dicts, a text for each key.

  Args:
    then, now: the configs.
    prefix: of their keys.
    changed: dotted keys whose values are other than in the config file. What is
      in the file alone, and new there, makes no difference: it is what the file
      does without being asked. None if it is not known; then all makes one.
  """
  for key in sorted(then.keys() | now.keys()):
    left, right = then.get(key, 'nothing'), now.get(key, 'nothing')
    path = prefix + key
    if isinstance(left, dict) and isinstance(right, dict):
      yield from differences(left, right, f'{path}.', changed=changed)
    elif key not in then and changed is not None and not _has(changed, path):
      continue
    # A path stays in config.json as it was given: another machine, or whoever
    # gets the file, has another home folder.
    elif not paths.same(left, right):
      yield f'{path} was {left} and is now {right}'


def _has(keys, path):
  """Whether a key is among others, or in a group of them, or a group is."""
  return any(f'{key}.'.startswith(f'{path}.') for key in keys) or any(
    f'{path}.'.startswith(f'{key}.') for key in keys
  )


def read_config(workdir):
  """The config of a run.

  Raises:
    errors.InputError: there is none, it is damaged, or its networks are larger
      than any machine can hold.
  """
  path = pathlib.Path(workdir, 'config.json')
  if not path.exists():
    raise errors.InputError(
      f'{workdir} is no run directory (it has no config.json): train one'
      f' with `python -m mtnet_jax.main --workdir={workdir}'
      ' --config=configs/mtnet.py:demo`.'
    )
  tree = upgraded(_read(path, *_NEEDED))
  for key in ('dataset', 'seg_net', 'class_net'):
    if not isinstance(tree[key], dict):
      raise errors.InputError(
        f'{path} is damaged: its {key} is no group of values. Train again in'
        ' another --workdir.'
      )
  texts.check_tree(tree, path)
  texts.check_types(tree, _CONFIG_TYPES, path)
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
  return tree


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
    errors.InputError: a stage has no checkpoint yet.
  """
  # This imports Orbax, which takes long; a bundle is read without it.
  from mtnet_jax.storage import checkpoint

  variables = {}
  for stage in names:
    directory = checkpoint_dir(workdir, stage)
    best = checkpoint.load_best(directory)
    if best is None:
      raise errors.InputError(
        f'{directory} has no checkpoint: the run is not finished; give its'
        ' training command again, it goes on where it stopped.'
      )
    variables[stage], _ = best
  return variables


def header(config, *, dataset, simulated):
  """The first entries of every metrics.json."""
  return {
    'dataset': dataset,
    'simulated': simulated,
    'seed': config.seed,
    'variant': config.variant,
    'strategy': config.strategy,
    'matmul_precision': config.matmul_precision,
    'versions': {
      'mtnet_jax': mtnet_jax.__version__,
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name) for name in _PACKAGES},
    },
    'coarse_mask': config.coarse_mask,
    'hardware': _hardware(),
  }


def _hardware():
  device = jax.devices()[0]
  return {
    'platform': device.platform,
    'kind': device.device_kind,
    'devices': devices.device_count(),
    'processes': jax.process_count(),
  }


@contextlib.contextmanager
def lock(directory):
  """Keeps other processes out of a directory while the block runs.

  The operating system keeps the lock, and drops it when the process ends in any
  way. The file that stays behind means nothing.

  Args:
    directory: an existing directory.

  Raises:
    errors.BusyError: another process holds it.
    errors.InputError: it cannot be locked.
  """
  lock = filelock.FileLock(pathlib.Path(directory, '.lock'), blocking=False)
  try:
    lock.acquire()
  except filelock.Timeout as error:
    raise errors.BusyError(
      f'another process that still runs has {directory}: wait for it, or choose'
      ' another --workdir.'
    ) from error
  except OSError as error:
    raise errors.InputError(
      f'{directory} cannot be locked ({error.strerror}): choose another'
      ' --workdir.'
    ) from error
  try:
    yield
  finally:
    lock.release()
