"""What a training step depends on: the values of a config that it needs."""

import dataclasses

import ml_collections
import numpy as np

from mtnet_jax.data import augment


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """What the compiled step depends on, in addition to the stage.

  Attributes:
    size: side of the networks' input, in pixels.
    window: (low, high) HU, as in the config.
    strategy: as in the config.
    coarse_mask: as in the config.
    augmentation: as in the config.
    max_top_k: the largest K of the rank loss that the step supports.
    steps_per_epoch: steps after which the sum of the losses restarts at zero.
    cross_entropy: whether `losses.pixel_cross_entropy` is part of the
      segmentation loss.
    weight_average: decay of the moving average of the variables; 0 for none.
  """

  size: int
  window: tuple[float, float]
  strategy: str
  coarse_mask: str
  augmentation: augment.Augmentation
  max_top_k: int
  steps_per_epoch: int
  cross_entropy: bool = False
  weight_average: float = 0.0


def step_options(
  config: ml_collections.ConfigDict, *, steps_per_epoch: int
) -> StepOptions:
  """Returns the `StepOptions` of a config."""
  return StepOptions(
    size=config.image_size,
    window=tuple(config.window),
    strategy=config.strategy,
    coarse_mask=config.coarse_mask,
    augmentation=augment.Augmentation(**config.augment),
    max_top_k=config.rank_loss.max_top_k or config.rank_loss.top_k,
    steps_per_epoch=steps_per_epoch,
    cross_entropy=config.cross_entropy_weight > 0,
    weight_average=config.weight_average,
  )


def loss_hyperparams(
  config: ml_collections.ConfigDict,
) -> dict[str, np.generic]:
  """Returns the hyperparameters of the loss.

  They are arguments of the compiled step: configs that differ in nothing else
  share its program.
  """
  rank = config.rank_loss
  return {
    'rank_weight': np.float32(rank.weight),
    'top_k': np.int32(rank.top_k),
    'margin': np.float32(rank.margin),
    'class_weight': np.float32(config.class_weight),
    'cross_entropy_weight': np.float32(config.cross_entropy_weight),
  }
