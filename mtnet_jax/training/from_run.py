"""Which trained model a run starts from: another run, or a bundle.

Every stage starts from the variables of the same stage there, with Adam's
moments at zero: phantoms first and real CT after, as section 5 of the paper
asks for.
"""

import functools
import pathlib

import jax

from mtnet_jax.data import lidc
from mtnet_jax.models import nets
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import files
from mtnet_jax.storage import tensors
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from mtnet_jax.training import start

_FILLED_IN = ('start_from_sha256', 'start_from_dataset')


def fill_in(config, workdir):
  """The config with the checksum of the variables that it starts from.

  Beside it stands the dataset that they were trained on. A run resumes without
  the model that it began with.

  Args:
    config: of `configs/mtnet.py`.
    workdir: the run directory, which need not exist yet.

  Raises:
    errors.InputError: there is no such model, its networks or folds are others,
      or the config names public weights, too.
  """
  if not config.start_from:
    return config
  if config.pretrained.segmentation or config.pretrained.classification:
    raise errors.InputError(
      'config.start_from and config.pretrained both say where the networks'
      ' start: leave one of them out.'
    )
  try:
    found_source = bundle_files.read_source(
      config.start_from, check_variables=nets.check_variables
    )
    before = found_source.config
    source = found_source.load(nets.names(before))
  except errors.InputError:
    found = _earlier(config, workdir)
    if found is None:
      raise
  else:
    _check_networks(config, source)
    found = {
      'start_from_sha256': tensors.digest(source),
      'start_from_dataset': before.dataset.name,
    }
    # With a list, `keep_seen` compares the nodules themselves.
    if found_source.seen is None:
      _check_folds(config, before)
  settled = config.copy_and_resolve_references()
  with settled.unlocked():
    settled.update(found)
  return settled


def _earlier(config, workdir):
  """What a run began with that began with this source, or None."""
  saved = pathlib.Path(workdir, 'config.json')
  tree = files.read_json(saved) if saved.exists() else {}
  if not paths.same(tree.get('start_from'), config.start_from):
    return None
  return {key: tree[key] for key in _FILLED_IN if key in tree}


def _check_folds(config, before):
  for what, folds, others in (
    (
      'config.dataset.rotate_folds',
      config.dataset.rotate_folds,
      before.dataset.rotate_folds,
    ),
    (
      'the folds of its dataset',
      lidc.split_of(lidc.lasting_name(config.dataset.name)) or 'the usual ones',
      lidc.split_of(before.dataset.name) or 'the usual ones',
    ),
  ):
    if folds != others:
      raise errors.InputError(
        f'config.start_from={config.start_from} was trained on other folds'
        f' ({what}={others}): it has seen nodules that this run would test'
        ' itself on. Start from a model of the same folds.'
      )


def _check_networks(config, source):
  shapes = nets.variable_shapes(config)
  in_common = [name for name in shapes if name in source]
  if not in_common:
    raise errors.InputError(
      f'config.start_from={config.start_from} has the stages'
      f' {", ".join(source)}, and this run {", ".join(shapes)}: none in common.'
    )
  for name in in_common:
    try:
      jax.eval_shape(
        functools.partial(
          variables_lib.take_over_network,
          name=name,
          newly_initialised=_lacking(shapes[name], source[name]),
        ),
        shapes[name],
        source[name],
      )
    except ValueError as error:
      raise errors.InputError(
        f'config.start_from={config.start_from} has other networks than this'
        f' config ({error}): give the fields of seg_net and class_net that are'
        ' in its config.json.'
      ) from error


def _lacking(initial, trained):
  """First names of the variables that only `initial` has."""
  return tuple(
    sorted(
      {
        name
        for collection in initial
        for name in initial[collection].keys() - trained[collection].keys()
      }
    )
  )


def loader(config, stage, *, say=print):
  """What loads the variables that a stage starts from.

  Args:
    config: of `fill_in`.
    stage: a `stages.Stage`.
    say: prints a line.

  Returns:
    () -> `start.Start`; None where the config starts from nothing, or from a
    model without this stage.
  """
  if not config.start_from:
    return None
  try:
    source = bundle_files.read_source(
      config.start_from, check_variables=nets.check_variables
    )
  except errors.InputError as error:
    # No matter where the stage is trained, or has a checkpoint to go on from.
    return functools.partial(_raise, error)
  names = nets.names(source.config)
  if stage.name not in names:
    if not stage.epochs:
      return functools.partial(_raise, _not_whole(config, stage))
    return None
  return functools.partial(
    _load, config, stage, functools.partial(source.load, names), say
  )


def _not_whole(config, stage):
  return errors.InputError(
    f'config.{stage.name}_stage.epochs=0 takes the stage as it is, and'
    f' config.start_from={config.start_from} has not all of it: train it for an'
    ' epoch at least.'
  )


def _raise(error):
  raise error


def _load(config, stage, read_variables, say):
  source = read_variables()
  if tensors.digest(source) != config.start_from_sha256:
    raise errors.InputError(
      f'{config.start_from} is not what this run began with (its checksum was'
      f' {config.start_from_sha256}): put that one back, or choose another'
      ' --workdir.'
    )
  trained = source[stage.name]
  lacking = _lacking(start.shapes(stage, size=config.image_size), trained)
  if not stage.epochs:
    if lacking:
      raise _not_whole(config, stage)
    say(f"Stage '{stage.name}' is that of {config.start_from}, as it is.")
    return start.Start(trained, lacking)
  say(
    f"Stage '{stage.name}' starts from {config.start_from}; new:"
    f' {", ".join(lacking) or "nothing"}.'
  )
  return start.Start(trained, lacking)
