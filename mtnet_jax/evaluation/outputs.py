"""The outputs of networks for a whole split."""

from mtnet_jax.models import nets
from mtnet_jax.models import predictor as predictor_lib
from mtnet_jax.system import devices


def predict(config, variables, nodules, *, progress):
  """Runs the networks over a split.

  Args:
    config: the run's config.
    variables: stage name -> variables as NumPy arrays.
    nodules: `nodules.Nodules`.
    progress: wraps the batches, as tqdm does.

  Returns:
    The outputs of `predictor.predict_step` for every nodule.
  """
  predictor = predictor_lib.Predictor(
    nets.make_nets(config),
    batch_size=min(config.eval_batch_size, len(nodules)),
    precision=config.matmul_precision,
    **predictor_lib.options(config),
  )
  return predictor(devices.replicate(variables), nodules.image, progress)
