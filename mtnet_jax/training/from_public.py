"""Which public weights a run starts from, and what they change in its config.

The fields that weights need (batch-norm epsilon, input range, ...) go into the
groups of the networks, and the files' checksums beside their paths: the
config.json of a run then describes its networks completely, whether or not the
files are still there.
"""

import dataclasses
import functools
import pathlib

from mtnet_jax.models import baselines
from mtnet_jax.models import layers
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets
from mtnet_jax.models import strategies
from mtnet_jax.storage import configs
from mtnet_jax.storage import files as files_lib
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from mtnet_jax.weights import files as weight_files
from mtnet_jax.weights import load as weight_load
from mtnet_jax.weights import sources

# Task -> the stages that may start from its weights, of which the strategy's
# first one does, and the group of their networks.
_STAGES = {
  'segmentation': ('coarse', 'fine', 'joint'),
  'classification': ('class',),
}
_GROUP = {'segmentation': 'seg_net', 'classification': 'class_net'}


def _files(config):
  """Task -> path and checksum, of the tasks that start from public weights.

  The checksum is '' where none was filled in.
  """
  pretrained = config.pretrained
  found = {
    'segmentation': (pretrained.segmentation, pretrained.segmentation_sha256),
    'classification': (
      pretrained.classification,
      pretrained.classification_sha256,
    ),
  }
  return {
    task: (paths.expand(path), checksum)
    for task, (path, checksum) in found.items()
    if path
  }


def fill_in(config, workdir):
  """The config with what follows from its weights' files.

  A run that began with a file resumes without it: what followed from the file
  is then read from the run's config.json.

  Args:
    config: of `configs/mtnet.py`.
    workdir: the run directory, which need not exist yet.

  Raises:
    errors.InputError: a file cannot be used, or the config asks for another
      value of a field that the weights need.
  """
  settled = config.copy_and_resolve_references()
  for task, (path, _) in _files(config).items():
    net = _loading_net(config, task)
    group = settled[_GROUP[task]]
    earlier = _earlier(workdir, task, path)
    if earlier is not None and not weight_files.exists(path):
      checksum, fields = earlier
    else:
      fields = weight_load.match(path, net).fields
      checksum = weight_files.sha256(path)
    for key, value in fields.items():
      if key in group and group[key] != value:
        raise errors.InputError(
          f'config.{_GROUP[task]}.{key}={group[key]} contradicts {path}, which'
          f' needs {value}: leave it out.'
        )
    with settled.unlocked():
      group.update(fields)
      settled.pretrained[f'{task}_sha256'] = checksum
    _check_strategy(settled, task, fields, path)
  return settled


def _check_strategy(config, task, fields, path):
  """Raises where a strategy decides a field otherwise than weights need it."""
  net = _loading_net(config, task)
  for key, value in fields.items():
    if getattr(net, key) != value:
      raise errors.InputError(
        f'{path} needs {key}={value}, and the network of strategy'
        f' {config.strategy!r} has {getattr(net, key)}: take another.'
      )


def _stage_name(config, task):
  """The stage that starts from a task's weights, or None."""
  has = strategies.stages_of(config.strategy)
  return next((name for name in _STAGES[task] if name in has), None)


def _loading_net(config, task):
  """The network that a task's weights are for.

  Raises:
    errors.InputError: the strategy has none.
  """
  net = nets.make_nets(config).get(_stage_name(config, task))
  if isinstance(net, baselines.SharedNet):
    return segmentation_part(net)
  if net is None or isinstance(net, baselines.UNet):
    raise errors.InputError(
      f'config.pretrained.{task}: strategy {config.strategy!r} has no network'
      ' that public weights fit; leave it out.'
    )
  return net


def _earlier(workdir, task, path):
  """Checksum and fields that a run began with; None if it had another path."""
  saved = pathlib.Path(workdir, 'config.json')
  if not saved.exists():
    return None
  tree = configs.upgraded(files_lib.read_json(saved))
  pretrained = tree.get('pretrained', {})
  if not paths.same(pretrained.get(task), path):
    return None
  fields = {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in tree[_GROUP[task]].items()
    if key in sources.FIELDS
  }
  return pretrained[f'{task}_sha256'], fields


def loader(config, stage):
  """What loads a stage's public weights.

  Args:
    config: of `fill_in`.
    stage: a `stages.Stage`.

  Returns:
    () -> `load.Weights`, or None if the stage has none to start from.
  """
  for task, (path, checksum) in _files(config).items():
    if _stage_name(config, task) == stage.name:
      net = _loading_net(config, task)
      return functools.partial(_load, path, checksum, net=net, stage=stage)
  return None


def _load(path, checksum, *, net, stage):
  weights = weight_load.load(path, net)
  if weight_files.sha256(path) != checksum:
    raise errors.InputError(
      f'{path} is not the file that this run began with (its checksum was'
      f' {checksum}): put that one back, or choose another --workdir.'
    )
  if stage.task == 'both':
    weights = dataclasses.replace(
      weights,
      newly_initialised=(*weights.newly_initialised, *baselines.CLASS_LAYERS),
    )
  print(
    f"Stage '{stage.name}' starts from {path} ({weights.title}); new:"
    f' {", ".join(weights.newly_initialised) or "nothing"}.'
  )
  return weights


def segmentation_part(net):
  """The Coarse Seg-net whose variables are part of a `SharedNet`'s."""
  return mtnet.CoarseSegNet(**layers.fields_of(net, mtnet.CoarseSegNet))
