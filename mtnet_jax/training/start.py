"""The variables that a stage starts from."""

from typing import Any
from typing import NamedTuple

from mtnet_jax.models import joint
from mtnet_jax.models import mtnet
from mtnet_jax.models import variables as variables_lib


class Start(NamedTuple):
  """Trained variables for a stage to start from.

  Attributes:
    variables: {'params', 'batch_stats'}.
    newly_initialised: first names of what they lack.
  """

  variables: Any
  newly_initialised: tuple[str, ...]


def init_variables(
  stage,
  seed,
  *,
  size,
  started=None,
  newly_initialised=(variables_lib.FINE_LAYER,),
):
  """Variables of a stage's network before its first step.

  Args:
    stage: the stage.
    seed: from 0.
    size: side of the input.
    started: trained variables, of `inherited`, or public weights. Every leaf of
      theirs is taken over.
    newly_initialised: names of what they lack, which stays random: the fine
      layer where they are the coarse net's.

  Returns:
    {'params': ..., 'batch_stats': ...}
  """
  variables = dict(variables_lib.draw(shapes(stage, size=size), seed))
  if stage.task == 'classification' and stage.net.use_coarse_mask:
    variables['params'] = mtnet.average_fourth_channel(variables['params'])
  if started is not None:
    variables = variables_lib.take_over_network(
      variables,
      started,
      name=stage.name,
      newly_initialised=newly_initialised,
    )
  return variables


def shapes(stage, *, size):
  """The shapes and types of `init_variables`."""
  return variables_lib.cached_shapes_of(stage.net, size, stage.inputs)


def inherited(stage, trained):
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
