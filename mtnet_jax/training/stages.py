"""The stages of a run: what each trains, on which inputs, and for how long."""

import dataclasses

from flax import linen as nn
import ml_collections

from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.system import devices

_TASKS = {
  'coarse': 'segmentation',
  'class': 'classification',
  'fine': 'segmentation',
  'joint': 'both',
}
# Task -> the validation metric that selects the best epoch.
_SELECT_BY = {
  'segmentation': 'jaccard',
  'classification': 'auc',
  # The mean of the Jaccard index and the AUC.
  'both': 'jaccard_and_auc',
}


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training.

  Stages with equal fields are equal, so that they share a compiled step.

  Attributes:
    name: one of `strategies.STAGES`; also names the folder of its checkpoints.
    net: the network to train.
    task: 'segmentation', 'classification' or 'both'; decides the loss.
    select_by: the validation metric that selects the best epoch; higher is
      better.
    batch_size: examples per step, over all devices.
    epochs: epochs to train; 0 keeps the variables of `config.start_from`.
    learning_rate: as in `optim.make_optimizer`.
    schedule: as in `optim.make_optimizer`.
    weight_decay: as in `optim.make_optimizer`.
    inputs: what the network receives with the image, a key of
      `strategies.INPUTS`.
    starts_from: earlier stages whose trained variables this one starts from.
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


def make_stages(config: ml_collections.ConfigDict) -> tuple[Stage, ...]:
  """Returns the stages that a config trains, in the order of training."""
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
