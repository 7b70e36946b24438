"""The trained networks on HU patches: one jitted step, any number of devices.

Validation, evaluation and prediction all run this step, so that they cannot
differ.
"""

import functools

import jax
import numpy as np

from mtnet_jax import augment
from mtnet_jax import metrics
from mtnet_jax import parallel
from mtnet_jax import stages


def predict_step(variables, hu, *, nets, size, window, coarse_mask):
  """What the networks at hand say about plain patches.

  Args:
    variables: stage name -> variables, of 'coarse' and any others.
    hu: (B, P, P) HU at native spacing.
    nets: stage name -> network.
    size: side of the networks' input.
    window: (low, high) HU.
    coarse_mask: 'hard', 'soft' or 'none', as in `stages.hand_on`.

  Returns:
    A dict of what `variables` allow: 'coarse' and 'fine' (B, P, P)
    probabilities on the patch's own grid, 'class' (B,) probability of
    malignancy, 'cam' (B, P, P) class activation map.
  """
  patch_size = hu.shape[1]
  images = augment.plain_images(hu, size=size, window=window)
  outputs = {}

  def run(name, mask=None):
    return stages.apply_net(
      nets[name], variables[name], images, mask, train=False
    )

  def probability_map(logits):
    return augment.to_patch_grid(jax.nn.sigmoid(logits[..., 0]), patch_size)

  logits, _ = run('coarse')
  outputs['coarse'] = probability_map(logits)
  mask = stages.hand_on(logits, coarse_mask)
  if 'fine' in variables:
    logits, _ = run('fine', mask)
    outputs['fine'] = probability_map(logits)
  if 'class' in variables:
    logits, taps = run('class', mask)
    outputs['class'] = jax.nn.sigmoid(logits)
    outputs['cam'] = jax.image.resize(
      taps['cam'], (hu.shape[0], patch_size, patch_size), 'linear'
    )
  return outputs


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
  """What a user is told, of the outputs of `predict_step`.

  Returns:
    A dict of `mask` and `coarse_mask` (B, P, P) bool, `probability` and `cam`
    (B, P, P), and `malignancy` (B,); see `model.Prediction`.
  """
  return {
    'mask': outputs['fine'] >= metrics.THRESHOLD,
    'probability': outputs['fine'],
    'malignancy': outputs['class'],
    'coarse_mask': outputs['coarse'] >= metrics.THRESHOLD,
    'cam': outputs['cam'],
  }


@functools.lru_cache(maxsize=8)
def _mapped(nets, *, size, window, coarse_mask, precision, device):
  return parallel.mapped(
    functools.partial(
      predict_step,
      nets=dict(nets),
      size=size,
      window=window,
      coarse_mask=coarse_mask,
    ),
    precision=precision,
    device=device,
  )


class Predictor:
  """Compiles `predict_step` once and feeds it batches of one size.

  Predictors of equal arguments share what they compile.

  Args:
    nets, size, window, coarse_mask: of `predict_step`.
    batch_size: over all devices; rounded up to a multiple of their number.
    precision: of float32 products, as in `parallel.mapped`.
  """

  def __init__(
    self, nets, *, size, window, coarse_mask, batch_size, precision='highest'
  ):
    devices = parallel.device_count()
    self._batch = devices * -(-batch_size // devices)
    self._step = _mapped(
      tuple(sorted(nets.items())),
      size=size,
      window=tuple(window),
      coarse_mask=coarse_mask,
      precision=precision,
      device=parallel.only_device(),
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
      outputs = parallel.gather(self._step(variables, parallel.share(filled)))
      parts.append(
        {
          key: np.asarray(x[: len(part)], np.float32)
          for key, x in outputs.items()
        }
      )
    return {
      key: np.concatenate([part[key] for part in parts]) for key in parts[0]
    }
