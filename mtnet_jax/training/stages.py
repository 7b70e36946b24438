"""The stages: which network learns what, from what, chosen by what."""

import dataclasses

from flax import linen as nn

from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
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
  # This is the mean of the two.
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
    epochs, learning_rate, schedule, weight_decay: of the optimizer.
    inputs: what the network receives beside the image, of
      `strategies.INPUTS`.
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
  weight_decay: float = 0.0
  inputs: str = 'nothing'
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
      inputs=part.inputs,
      starts_from=part.starts_from,
      **config[f'{name}_stage'],
    )
    for name, part in strategies.STRATEGIES[config.strategy].items()
    if name in config.stages
  )
