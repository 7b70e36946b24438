"""Runs trained networks over a whole split."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.models import nets
from mtnet_jax.models import predictor as predictor_lib
from mtnet_jax.system import devices


def predict(
  config: ml_collections.ConfigDict,
  variables: Mapping[str, Any],
  nodules: nodules_lib.Nodules,
  *,
  progress: Callable[[Any], Any],
) -> dict[str, np.ndarray]:
  """Runs the networks of a run over a split.

  Args:
    config: config of the run.
    variables: stage name -> variables as NumPy arrays.
    nodules: the split.
    progress: wraps the iterable of batches, as tqdm does.

  Returns:
    The outputs of `predictor.predict_step` for all nodules.
  """
  predictor = predictor_lib.Predictor(
    nets.make_nets(config),
    batch_size=min(config.eval_batch_size, len(nodules)),
    precision=config.matmul_precision,
    **predictor_lib.options(config),
  )
  return predictor(devices.replicate(variables), nodules.image, progress)
