"""What a run writes about a step whose loss or gradient is not finite."""

import pathlib

import numpy as np

from mtnet_jax.data import nodules
from mtnet_jax.storage import files
from mtnet_jax.system import errors
from mtnet_jax.training import stage as stage_lib

FILE = 'not_finite.json'


def write(
  path: pathlib.Path,
  *,
  stage: stage_lib.Stage,
  data: nodules.Nodules,
  order: np.ndarray,
  step: int,
  loss: float,
) -> None:
  """Writes which nodules were in the batch of the step.

  Args:
    path: the file to write.
    stage: the stage that is trained.
    data: the nodules that it is trained on.
    order: (batch_size, 2), nodule and view of each example, as returned by
      `feeding.Feeder.order_of`.
    step: counted from 1.
    loss: the step's loss.
  """
  index, view = order.T
  files.write_json(
    path,
    {
      'stage': stage.name,
      'simulated': data.simulated,
      'step': step,
      'loss': loss if np.isfinite(loss) else str(loss),
      'nodule_ids': data.info['nodule_id'][index].tolist(),
      'views': view.tolist(),
    },
  )


def error(
  path: pathlib.Path, *, stage: stage_lib.Stage, step: int, loss: float
) -> errors.InputError:
  """Returns the error that ends the run.

  Args:
    path: the file that `write` wrote.
    stage: as in `write`.
    step: as in `write`.
    loss: as in `write`.
  """
  return errors.InputError(
    f"stage '{stage.name}': the loss ({loss:.4g}) or its gradient was"
    f' not finite at step {step}; {path} lists the nodules of its batch. The'
    ' last good checkpoint is kept. Train with a lower'
    f' config.{stage.name}_stage.learning_rate in another --workdir.'
  )
