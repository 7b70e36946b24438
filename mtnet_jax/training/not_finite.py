"""What a run leaves of a step whose loss or gradient was not finite."""

import numpy as np

from mtnet_jax.storage import files
from mtnet_jax.system import errors

FILE = 'not_finite.json'


def write(path, *, stage, data, order, step, loss):
  """Writes the nodules of the step's batch.

  Args:
    path: of the file.
    stage: the `stages.Stage`.
    data: `nodules.Nodules` that it is trained on.
    order: (batch, 2) of nodule and view, of `feeding.Feeder.order_of`.
    step: counted from 1.
    loss: of the step.
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


def error(path, *, stage, step, loss):
  """The `errors.InputError` that ends the run; arguments as of `write`."""
  return errors.InputError(
    f"stage '{stage.name}': the loss ({loss:.4g}) or its gradient was"
    f' not finite at step {step}; {path} has the nodules of its batch. The'
    ' last good checkpoint stays. Train with a lower'
    f' config.{stage.name}_stage.learning_rate in another --workdir.'
  )
