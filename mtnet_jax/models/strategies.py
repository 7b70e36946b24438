"""Strategies: which networks learn the two tasks, and from which inputs.

'mtnet' is the paper's strategy. Four are those that the paper compares it with
(table 1), built from the same blocks:

    shared    Wu et al. [30]: one encoder, two heads
    feedback  Chen et al. [31]: like shared, but the classifier also reads
              features of the segmentation
    serial    Yu et al. [1]: the classifier sees only what lies inside the
              predicted mask
    single    U-Net and Xception, independent of each other

Two extend the paper's:

    cam       MT-Net whose fine layer also receives the activation map
    finetune  MT-Net, followed by joint training of all three networks, which
              are connected by soft masks

docs/decisions.md says how details are filled in that the references omit.
"""

from collections.abc import Container
from typing import NamedTuple

# All stages that a strategy can have, in the order of training. Each has a
# group in the config, such as `coarse_stage`.
STAGES = ('coarse', 'class', 'fine', 'joint')


class StageInputs(NamedTuple):
  """What a network receives from the networks before it.

  Attributes:
    upstream: stages whose networks run before it, in order.
    channels: number of maps that it receives in addition to the image.
  """

  upstream: tuple[str, ...] = ()
  channels: int = 0


INPUTS = {
  'nothing': StageInputs(),
  'mask': StageInputs(('coarse',), 1),
  'mask_and_cam': StageInputs(('coarse', 'class'), 2),
  # The cut-out image replaces the image, so there is no additional map.
  'cut_out': StageInputs(('fine',)),
}


class Part(NamedTuple):
  """The role of a stage in a strategy.

  Attributes:
    inputs: what its network receives, a name in `INPUTS`.
    starts_from: stages whose trained variables initialise its network.
  """

  inputs: str = 'nothing'
  starts_from: tuple[str, ...] = ()


_MTNET = {
  'coarse': Part(),
  'class': Part('mask'),
  'fine': Part('mask', ('coarse',)),
}
# Strategy -> stage -> part, with the stages in the order of training.
STRATEGIES: dict[str, dict[str, Part]] = {
  'mtnet': _MTNET,
  'shared': {'joint': Part()},
  'feedback': {'joint': Part()},
  'serial': {'fine': Part(), 'class': Part('cut_out')},
  'single': {'fine': Part(), 'class': Part()},
  'cam': {**_MTNET, 'fine': Part('mask_and_cam', ('coarse',))},
  'finetune': {**_MTNET, 'joint': Part(starts_from=tuple(_MTNET))},
}


def stages_of(strategy: str) -> tuple[str, ...]:
  """Returns the stages of a strategy, in the order of training."""
  return tuple(STRATEGIES[strategy])


def upstream_names(strategy: str, stage: str) -> tuple[str, ...]:
  """Returns the stages whose networks run before a stage's, in order."""
  return INPUTS[STRATEGIES[strategy][stage].inputs].upstream


def predicting(strategy: str, stages: Container[str]) -> tuple[str, ...]:
  """Returns the stages whose networks have to run for a prediction, in order.

  Args:
    strategy: a name in `STRATEGIES`.
    stages: the stages that are trained. A joint network contains all others of
      its strategy, so it runs alone.
  """
  if 'joint' in stages:
    return ('joint',)
  return tuple(stage for stage in stages_of(strategy) if stage in stages)


def stage_seed(seed: int, stage: str) -> int:
  """Returns a seed for a stage that no other stage or run shares."""
  if stage == 'joint':
    return 2**30 + seed
  return seed * len(_MTNET) + tuple(_MTNET).index(stage)
