"""The variables that a stage starts from."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Protocol

from mtnet_jax.models import joint
from mtnet_jax.models import mtnet
from mtnet_jax.models import variables as variables_lib
from mtnet_jax.training import stage as stage_lib


class Start(NamedTuple):
  """Trained variables for a stage to start from.

  Attributes:
    variables: {'params', 'batch_stats'}.
    newly_initialised: top-level names of the network's variables that
      `variables` lacks.
  """

  variables: Mapping[str, Any]
  newly_initialised: tuple[str, ...]


class Weights(Protocol):
  """What a stage can start from: a `Start`, or public weights."""

  @property
  def variables(self) -> Mapping[str, Any]:
    """As in `Start`."""

  @property
  def newly_initialised(self) -> tuple[str, ...]:
    """As in `Start`."""


LoadWeights = Callable[[], Weights]


def init_variables(
  stage: stage_lib.Stage,
  seed: int,
  *,
  size: int,
  started: Mapping[str, Any] | None = None,
  newly_initialised: tuple[str, ...] = (variables_lib.FINE_LAYER,),
) -> dict[str, Any]:
  """Returns the variables of a stage's network before its first step.

  Args:
    stage: the stage.
    seed: of the random values, 0 or more.
    size: side of the network's input, in pixels.
    started: trained variables, from `inherited` or from public weights. All of
      their leaves are copied.
    newly_initialised: top-level names that `started` lacks; these variables
      stay random. The default is for `started` of Coarse Seg-net, which lacks
      the fine layer.

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


def shapes(stage: stage_lib.Stage, *, size: int) -> dict[str, Any]:
  """Returns the result of `init_variables` as `jax.ShapeDtypeStruct`s."""
  return variables_lib.cached_shapes_of(stage.net, size, stage.inputs)


def inherited(
  stage: stage_lib.Stage, trained: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Returns the trained variables that a stage starts from.

  Args:
    stage: a stage whose `starts_from` is not empty.
    trained: stage name -> variables, for every stage in `starts_from` at least.
  """
  variables = {name: trained[name] for name in stage.starts_from}
  if stage.task == 'both':
    return joint.joined(variables)
  (only,) = variables.values()
  return only
