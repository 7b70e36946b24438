"""Starts a run from public weights, and completes its config for them.

The fields that the weights need (batch-norm epsilon, input range, ...) are
written into the groups of the networks, and the files' checksums beside their
paths. The config.json of a run then describes its networks completely, even if
the files no longer exist.
"""

from collections.abc import Callable
import dataclasses
import functools
import pathlib

import ml_collections

from mtnet_jax.models import baselines
from mtnet_jax.models import layers
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets
from mtnet_jax.models import strategies
from mtnet_jax.storage import configs
from mtnet_jax.storage import files as files_lib
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from mtnet_jax.training import stage as stage_lib
from mtnet_jax.weights import files as weight_files
from mtnet_jax.weights import load as weight_load
from mtnet_jax.weights import sources

# Task -> the stages that its weights fit. The weights initialise the first of
# these stages that the strategy has.
_STAGES = {
  'segmentation': ('coarse', 'fine', 'joint'),
  'classification': ('class',),
}
# Task -> the config's group of these networks.
_GROUP = {'segmentation': 'seg_net', 'classification': 'class_net'}


def _files(config):
  """Returns task -> (path, checksum) for tasks that start from public weights.

  The checksum is '' before `fill_in`.
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


def fill_in(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """Returns the config with the fields and checksums of its weights' files.

  A run that is resumed no longer needs the files: what `fill_in` found in them
  is then read from the run's config.json.

  Args:
    config: of `configs/mtnet.py`.
    workdir: the run directory, which need not exist yet.

  Raises:
    errors.InputError: a file cannot be used, or the config sets a field to
      another value than the weights need.
  """
  resolved = config.copy_and_resolve_references()
  for task, (path, _) in _files(config).items():
    net = _loading_net(config, task)
    group = resolved[_GROUP[task]]
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
    with resolved.unlocked():
      group.update(fields)
      resolved.pretrained[f'{task}_sha256'] = checksum
    _check_strategy(resolved, task, fields, path)
  return resolved


def _check_strategy(config, task, fields, path):
  """Raises where the strategy fixes a field to another value than needed."""
  net = _loading_net(config, task)
  for key, value in fields.items():
    if getattr(net, key) != value:
      raise errors.InputError(
        f'{path} needs {key}={value}, but the network of strategy'
        f' {config.strategy!r} has {getattr(net, key)}: use another file or'
        ' strategy.'
      )


def _stage_name(config, task):
  """Returns the stage that starts from a task's weights, or None."""
  has = strategies.stages_of(config.strategy)
  return next((name for name in _STAGES[task] if name in has), None)


def _loading_net(config, task):
  """Returns the network that a task's weights are loaded into.

  Raises:
    errors.InputError: the strategy has no such network.
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
  """Returns the checksum and fields in the run's config.json.

  Returns None where there is no such run, or it had another path.
  """
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


def loader(
  config: ml_collections.ConfigDict, stage: stage_lib.Stage
) -> Callable[[], weight_load.Weights] | None:
  """Returns a function that loads a stage's public weights.

  Args:
    config: as returned by `fill_in`.
    stage: the stage.

  Returns:
    The function; None where the stage does not start from public weights.
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
    f"Stage '{stage.name}' starts from {path} ({weights.title}); newly"
    f' initialised: {", ".join(weights.newly_initialised) or "nothing"}.'
  )
  return weights


def segmentation_part(net: baselines.SharedNet) -> mtnet.CoarseSegNet:
  """Returns the Coarse Seg-net whose variables are a part of `net`'s."""
  return mtnet.CoarseSegNet(**layers.fields_of(net, mtnet.CoarseSegNet))
