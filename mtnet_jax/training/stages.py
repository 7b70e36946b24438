"""The stages: which network learns what, from what, chosen by what."""

import dataclasses

from flax import linen as nn

from mtnet_jax.models import joint
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.system import devices

_TASKS = {
  'coarse': 'segmentation',
  'class': 'classification',
  'fine': 'segmentation',
  'joint': 'both',
}
_SELECT_BY = {
  'segmentation': 'jaccard',
  'classification': 'auc',
  # The mean of the two.
  'both': 'jaccard_and_auc',
}


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training: plain data, equal where everything in it is.

  Attributes:
    name: of `strategies.STAGES`; its checkpoints' folder.
    net: the network.
    task: 'segmentation', 'classification' or 'both', which says what the loss
      is.
    select_by: validation metric of which the highest epoch is kept.
    batch_size: over all devices.
    epochs, learning_rate, schedule: of the optimizer.
    receives: what the network receives beside the image, of
      `strategies.KINDS`.
    starts_from: stages whose trained variables it starts from.
  """

  name: str
  net: nn.Module
  task: str
  select_by: str
  batch_size: int
  epochs: int
  learning_rate: float
  schedule: str
  receives: str = 'nothing'
  starts_from: tuple[str, ...] = ()


def make_stages(config):
  """The stages that a config trains, in the order in which it does."""
  nets = nets_lib.make_nets(
    config, axis_name=devices.AXIS if config.sync_batch_norm else None
  )
  return tuple(
    Stage(
      name,
      nets[name],
      task=_TASKS[name],
      select_by=_SELECT_BY[_TASKS[name]],
      receives=part.receives,
      starts_from=part.starts_from,
      **config[f'{name}_stage'],
    )
    for name, part in strategies.STRATEGIES[config.strategy].items()
    if name in config.stages
  )


def init_variables(
  stage, seed, *, size, started=None, fresh_only=(variables_lib.FINE_LAYER,)
):
  """Variables of a stage's network before its first step.

  Args:
    stage: the stage.
    seed: from 0.
    size: side of the input.
    started: trained variables, of `start`, or public weights. Every leaf of
      theirs is taken over.
    fresh_only: what they lack, and stays random: the fine layer where they
      are the coarse net's.

  Returns:
    {'params': ..., 'batch_stats': ...}
  """
  shapes = variables_lib.shapes_of(stage.net, size, stage.receives)
  variables = dict(variables_lib.draw(shapes, seed))
  if stage.task == 'classification' and stage.net.use_coarse_mask:
    variables['params'] = mtnet.average_fourth_channel(variables['params'])
  if started is not None:
    variables = {
      name: variables_lib.take_over(
        tree, started[name], path=(stage.name, name), fresh_only=fresh_only
      )
      for name, tree in variables.items()
    }
  return variables


def stage_shapes(stage, *, size):
  """The shapes and types of `init_variables`."""
  return variables_lib.shapes_of(stage.net, size, stage.receives)


def start(stage, trained):
  """Variables that a stage starts from.

  Args:
    stage: the stage.
    trained: stage name -> variables, of `stage.starts_from` at least.
  """
  variables = {name: trained[name] for name in stage.starts_from}
  if stage.task == 'both':
    return joint.joined(variables)
  (only,) = variables.values()
  return only
