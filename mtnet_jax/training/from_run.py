"""Starts a run from a trained model: another run, or a bundle.

Every stage starts from the variables of the same stage of that model, with
Adam's moments at zero. This allows pretraining on phantoms and fine-tuning on
real CT, which section 5 of the paper names as future work.
"""

from collections.abc import Callable
import functools
import pathlib

import jax
import ml_collections

from mtnet_jax.data import dataset_names
from mtnet_jax.data import lidc
from mtnet_jax.models import nets
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.storage import bundle_files
from mtnet_jax.storage import files
from mtnet_jax.storage import tensors
from mtnet_jax.system import errors
from mtnet_jax.system import paths
from mtnet_jax.training import stage as stage_lib
from mtnet_jax.training import start

_FILLED_IN = ('start_from_sha256', 'start_from_dataset')


def fill_in(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """Returns the config with what it needs to know of `config.start_from`.

  This is the checksum of the model's variables, and the dataset that they were
  trained on. A run that is resumed no longer needs the model: both are then
  read from the run's config.json.

  Args:
    config: of `configs/mtnet.py`.
    workdir: the run directory, which need not exist yet.

  Raises:
    errors.InputError: the model does not exist, or has other networks or folds,
      or the config also names public weights.
  """
  if not config.start_from:
    return config
  if config.pretrained.segmentation or config.pretrained.classification:
    raise errors.InputError(
      'config.start_from and config.pretrained both say where the networks'
      ' start: leave one of them out.'
    )
  try:
    model = bundle_files.read_source(
      config.start_from, check_variables=nets.check_variables
    )
    trained = model.load(nets.names(model.config))
  except errors.InputError:
    found = _earlier(config, workdir)
    if found is None:
      raise
  else:
    _check_networks(config, trained)
    found = {
      'start_from_sha256': tensors.digest(trained),
      'start_from_dataset': model.config.dataset.name,
    }
    # Where the model has a list, `keep_seen` compares the nodules themselves.
    if model.seen is None:
      _check_folds(config, model.config)
  resolved = config.copy_and_resolve_references()
  with resolved.unlocked():
    resolved.update(found)
  return resolved


def _earlier(config, workdir):
  """Returns `_FILLED_IN` of the run's config.json.

  Returns None where there is no such run, or it started from another model.
  """
  saved = pathlib.Path(workdir, 'config.json')
  tree = files.read_json(saved) if saved.exists() else {}
  if not paths.same(tree.get('start_from'), config.start_from):
    return None
  return {key: tree[key] for key in _FILLED_IN if key in tree}


def _check_folds(config, before):
  """Raises where the model, whose config is `before`, has other folds."""
  for what, folds, others in (
    (
      'config.dataset.rotate_folds',
      config.dataset.rotate_folds,
      before.dataset.rotate_folds,
    ),
    (
      'the folds of its dataset',
      dataset_names.split_of(lidc.lasting_name(config.dataset.name))
      or 'the usual ones',
      dataset_names.split_of(before.dataset.name) or 'the usual ones',
    ),
  ):
    if folds != others:
      raise errors.InputError(
        f'config.start_from={config.start_from} was trained on other folds'
        f' ({what}={others}): it has seen nodules of the test split of this'
        ' run. Start from a model with the same folds.'
      )


def _check_networks(config, trained):
  """Raises if the model has no stage of this run, or has other variables."""
  shapes = nets.variable_shapes(config)
  in_common = [name for name in shapes if name in trained]
  if not in_common:
    raise errors.InputError(
      f'config.start_from={config.start_from} has the stages'
      f' {", ".join(trained)}, and this run has {", ".join(shapes)}: none in'
      ' common. Start from a model with one of the stages of this run.'
    )
  for name in in_common:
    try:
      jax.eval_shape(
        functools.partial(
          variables_lib.take_over_network,
          name=name,
          newly_initialised=_lacking(shapes[name], trained[name]),
        ),
        shapes[name],
        trained[name],
      )
    except ValueError as error:
      raise errors.InputError(
        f'config.start_from={config.start_from} has other networks than this'
        f' config ({error}): set the fields of seg_net and class_net as in its'
        ' config.json.'
      ) from error


def _lacking(initial, trained):
  """Returns the top-level names of the variables that only `initial` has."""
  return tuple(
    sorted(
      {
        name
        for collection in initial
        for name in initial[collection].keys() - trained[collection].keys()
      }
    )
  )


def loader(
  config: ml_collections.ConfigDict,
  stage: stage_lib.Stage,
  *,
  say: Callable[[str], object] = print,
) -> Callable[[], start.Start] | None:
  """Returns a function that loads the variables that a stage starts from.

  An error is raised only when that function is called: a stage that has
  finished or has a checkpoint does not need the model.

  Args:
    config: as returned by `fill_in`.
    stage: the stage.
    say: prints a line.

  Returns:
    The function; None where the config has no `start_from`, or the model lacks
    this stage.
  """
  if not config.start_from:
    return None
  try:
    model = bundle_files.read_source(
      config.start_from, check_variables=nets.check_variables
    )
  except errors.InputError as error:
    return functools.partial(_raise, error)
  names = nets.names(model.config)
  if stage.name not in names:
    if not stage.epochs:
      return functools.partial(_raise, _incomplete(config, stage))
    return None
  return functools.partial(
    _load, config, stage, functools.partial(model.load, names), say
  )


def _incomplete(config, stage):
  return errors.InputError(
    f'config.{stage.name}_stage.epochs=0 keeps the stage as it is in'
    f' config.start_from={config.start_from}, which lacks all or'
    ' some of its variables: train it for at least 1 epoch.'
  )


def _raise(error):
  raise error


def _load(config, stage, read_variables, say):
  variables = read_variables()
  if tensors.digest(variables) != config.start_from_sha256:
    raise errors.InputError(
      f'{config.start_from} is not the model that this run began with (its'
      f' checksum was {config.start_from_sha256}): put that one back, or choose'
      ' another --workdir.'
    )
  trained = variables[stage.name]
  lacking = _lacking(start.shapes(stage, size=config.image_size), trained)
  if not stage.epochs:
    if lacking:
      raise _incomplete(config, stage)
    say(f"Stage '{stage.name}' is kept as it is in {config.start_from}.")
    return start.Start(trained, lacking)
  say(
    f"Stage '{stage.name}' starts from {config.start_from}; newly initialised:"
    f' {", ".join(lacking) or "nothing"}.'
  )
  return start.Start(trained, lacking)
