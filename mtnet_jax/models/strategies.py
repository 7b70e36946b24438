"""Strategies: which networks learn the two tasks, and from which inputs.

'mtnet' is the paper's. Four are those it compares itself with (table 1), on
the same blocks:

    shared    Wu et al. [30]: one encoder, two heads
    feedback  Chen et al. [31]: the same, and the classifier also reads
              segmentation features
    serial    Yu et al. [1]: the classifier sees only what the predicted
              mask cuts out
    single    U-Net and Xception, independent of each other

and two go beyond it:

    cam       MT-Net, and the fine layer also receives the activation map
    finetune  MT-Net, then all three networks together through soft masks

What the references leave open is decided in docs/decisions.md.
"""

from typing import NamedTuple

# Every stage that a strategy may have, in the order of training; each has a
# group in the config, such as `coarse_stage`.
STAGES = ('coarse', 'class', 'fine', 'joint')


class StageInputs(NamedTuple):
  """What a network receives beside the image.

  Attributes:
    upstream: stages whose networks run before it, in their order.
    channels: of the maps beside the image.
  """

  upstream: tuple[str, ...] = ()
  channels: int = 0


INPUTS = {
  'nothing': StageInputs(),
  'mask': StageInputs(('coarse',), 1),
  'mask_and_cam': StageInputs(('coarse', 'class'), 2),
  # In the place of the image, not beside it.
  'cut_out': StageInputs(('fine',)),
}


class Part(NamedTuple):
  """A network's part in a strategy.

  Attributes:
    inputs: a name in `INPUTS`.
    starts_from: stages whose trained variables it starts from.
  """

  inputs: str = 'nothing'
  starts_from: tuple[str, ...] = ()


_MTNET = {
  'coarse': Part(),
  'class': Part('mask'),
  'fine': Part('mask', ('coarse',)),
}
# Strategy -> stage -> part; stages in the order of training.
STRATEGIES = {
  'mtnet': _MTNET,
  'shared': {'joint': Part()},
  'feedback': {'joint': Part()},
  'serial': {'fine': Part(), 'class': Part('cut_out')},
  'single': {'fine': Part(), 'class': Part()},
  'cam': {**_MTNET, 'fine': Part('mask_and_cam', ('coarse',))},
  'finetune': {**_MTNET, 'joint': Part(starts_from=tuple(_MTNET))},
}


def stages_of(strategy):
  """Names of its stages, in the order of training."""
  return tuple(STRATEGIES[strategy])


def upstream_names(strategy, stage):
  """Stages whose networks run before that of a stage, in their order."""
  return INPUTS[STRATEGIES[strategy][stage].inputs].upstream


def predicting(strategy, stages):
  """Which networks predict where those of `stages` are at hand, in order.

  A joint network has all of the strategy's networks in it.
  """
  if 'joint' in stages:
    return ('joint',)
  return tuple(stage for stage in stages_of(strategy) if stage in stages)


def stage_seed(seed, stage):
  """The seed of a stage: no two stages or runs share theirs."""
  if stage == 'joint':
    return 2**30 + seed
  return seed * len(_MTNET) + tuple(_MTNET).index(stage)
