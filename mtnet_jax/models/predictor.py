"""The trained networks on HU patches: one jitted step, any number of devices.

Validation, evaluation and prediction all run this step, so that they cannot
differ.
"""

import functools

import jax
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import augment
from mtnet_jax.models import chain
from mtnet_jax.models import strategies
from mtnet_jax.system import devices as devices_lib


def predict_step(
  variables,
  hu,
  *,
  nets,
  size,
  window,
  coarse_mask,
  strategy='mtnet',
  temperature=1.0,
):
  """Outputs of the networks at hand for plain patches.

  Args:
    variables: stage name -> variables; with a stage those of its upstream
      networks, see `strategies.upstream_names`.
    hu: (B, P, P) HU at native spacing.
    nets: stage name -> network.
    size: side of the networks' input.
    window: (low, high) HU.
    coarse_mask: 'hard', 'soft' or 'none', as in `chain.pass_mask`.
    strategy: a name in `strategies.STRATEGIES`.
    temperature: by which the logits of malignancy are divided.

  Returns:
    A dict of what the strategy and `variables` allow: 'coarse' and 'fine'
    (B, P, P) probabilities on the patch's own grid, 'class' (B,) probability of
    malignancy, 'cam' (B, P, P) class activation map.
  """
  patch_size = hu.shape[1]
  images = augment.plain_images(hu, size=size, window=window)
  network_outputs = chain.run(
    strategies.predicting(strategy, variables),
    nets,
    variables,
    images,
    strategy=strategy,
    coarse_mask=coarse_mask,
  )
  outputs = {
    name: augment.to_patch_grid(
      jax.nn.sigmoid(network_outputs[name][..., 0]), patch_size
    )
    for name in ('coarse', 'fine')
    if name in network_outputs
  }
  if 'class' in network_outputs:
    logits = network_outputs['class']
    outputs['class'] = jax.nn.sigmoid(
      logits if temperature == 1 else logits / temperature
    )
    outputs['cam'] = jax.image.resize(
      network_outputs['cam'], (hu.shape[0], patch_size, patch_size), 'linear'
    )
  return outputs


def options(config):
  """The options of `predict_step` that a config has."""
  return {
    'size': config.image_size,
    'window': tuple(config.window),
    'coarse_mask': config.coarse_mask,
    'strategy': config.strategy,
  }


def predict_at_spacing(
  variables, hu, pixel_spacing_mm, *, spacing_mm, **kwargs
):
  """`predict_step` for networks trained at one spacing.

  Args:
    variables, hu, kwargs: as in `predict_step`; hu at the spacing of the scan.
    pixel_spacing_mm: (B,) of hu.
    spacing_mm: that the networks were trained at; None for the scan's own.

  Returns:
    As `predict_step`, on the pixels of hu. What the networks did not see,
    because at their spacing a patch is smaller, has probability 0 and an
    activation of 0.
  """
  if spacing_mm is None:
    return predict_step(variables, hu, **kwargs)
  scale = spacing_mm / pixel_spacing_mm
  outputs = predict_step(variables, augment.resample(hu, scale), **kwargs)
  return {
    key: augment.resample(x, 1 / scale, outside=0.0) if x.ndim == 3 else x
    for key, x in outputs.items()
  }


def as_answer(outputs):
  """The answer to a user, from the outputs of `predict_step`.

  Returns:
    A dict of `mask` and `coarse_mask` (B, P, P) bool, `probability` and `cam`
    (B, P, P), and `malignancy` (B,); see `prediction.Prediction`.
  """
  return {
    'mask': outputs['fine'] >= metrics.THRESHOLD,
    'probability': outputs['fine'],
    'malignancy': outputs['class'],
    'coarse_mask': outputs['coarse'] >= metrics.THRESHOLD,
    'cam': outputs['cam'],
  }


@functools.lru_cache(maxsize=8)
def _mapped(nets, *, precision, device, **predict_options):
  return devices_lib.mapped(
    functools.partial(predict_step, nets=dict(nets), **predict_options),
    precision=precision,
    device=device,
    options=devices_lib.lean_options(),
  )


class Predictor:
  """Compiles `predict_step` once and feeds it batches of one size.

  Predictors of equal arguments share what they compile.

  Args:
    nets: of `predict_step`.
    batch_size: over all devices; rounded up to a multiple of their number.
    precision: of float32 products, as in `devices.mapped`.
    **predict_options: of `options`.
  """

  def __init__(
    self, nets, *, batch_size, precision='highest', **predict_options
  ):
    devices = devices_lib.device_count()
    self._batch = devices * -(-batch_size // devices)
    self._step = _mapped(
      tuple(sorted(nets.items())),
      precision=precision,
      device=devices_lib.only_device(),
      **predict_options,
    )

  def __call__(self, variables, hu, progress=lambda batches: batches):
    """Runs every patch exactly once.

    Args:
      variables: stage name -> variables, replicated over the devices.
      hu: (N, P, P) HU.
      progress: wraps the sequence of batch starts, as tqdm does.

    Returns:
      The outputs of `predict_step` for all N, as float32 NumPy arrays, the
      same on every process.
    """
    parts = []
    for start in progress(range(0, len(hu), self._batch)):
      part = np.asarray(hu[start : start + self._batch])
      # The last batch is filled up to the compiled shape and cut again.
      missing = self._batch - len(part)
      filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
      outputs = devices_lib.gather(
        self._step(variables, devices_lib.share(filled))
      )
      parts.append(
        {
          key: np.asarray(x[: len(part)], np.float32)
          for key, x in outputs.items()
        }
      )
    return {
      key: np.concatenate([part[key] for part in parts]) for key in parts[0]
    }
