"""The stages that a config trains."""

import ml_collections

from mtnet_jax.models import nets as nets_lib
from mtnet_jax.models import strategies
from mtnet_jax.system import devices
from mtnet_jax.training import stage as stage_lib

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


def make_stages(
  config: ml_collections.ConfigDict,
) -> tuple[stage_lib.Stage, ...]:
  """Returns the stages that a config trains, in the order of training."""
  nets = nets_lib.make_nets(
    config, axis_name=devices.AXIS if config.sync_batch_norm else None
  )
  return tuple(
    stage_lib.Stage(
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
