"""One stage of training: what it trains, on which inputs, and for how long."""

import dataclasses

from flax import linen as nn


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
