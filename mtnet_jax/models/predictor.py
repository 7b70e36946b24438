"""Runs the trained networks on HU patches, on any number of devices.

Validation, evaluation and prediction all run the same `predict_step`, so that
their results cannot differ.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import functools
from typing import TYPE_CHECKING
from typing import Any

from flax import linen as nn
import jax
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import augment
from mtnet_jax.models import chain
from mtnet_jax.models import strategies
from mtnet_jax.system import devices as devices_lib

if TYPE_CHECKING:
  import ml_collections


def predict_step(
  variables: Mapping[str, Mapping[str, Any]],
  hu: jax.Array,
  *,
  nets: Mapping[str, nn.Module],
  size: int,
  window: tuple[float, float],
  coarse_mask: str,
  strategy: str = 'mtnet',
  temperature: float = 1.0,
) -> dict[str, jax.Array]:
  """Runs all networks whose variables are available on unaugmented patches.

  Args:
    variables: stage name -> variables of its network. A stage needs those of
      its upstream networks, too; see `strategies.upstream_names`.
    hu: (B, P, P) HU at native spacing.
    nets: stage name -> network.
    size: side of the networks' input.
    window: (low, high) HU.
    coarse_mask: 'hard', 'soft' or 'none'; see `chain.pass_mask`.
    strategy: a name in `strategies.STRATEGIES`.
    temperature: divides the logits of malignancy.

  Returns:
    A dict of the outputs of the networks that ran: 'coarse' and 'fine'
    probabilities (B, P, P) on the patch's own grid, 'class' probability of
    malignancy (B,), and 'cam' class activation map (B, P, P).
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
  outputs: dict[str, jax.Array] = {
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


def options(config: 'ml_collections.ConfigDict') -> dict[str, Any]:
  """Returns the options of `predict_step` that a config determines."""
  return {
    'size': config.image_size,
    'window': tuple(config.window),
    'coarse_mask': config.coarse_mask,
    'strategy': config.strategy,
  }


def predict_at_spacing(
  variables: Mapping[str, Mapping[str, Any]],
  hu: jax.Array,
  pixel_spacing_mm: jax.Array,
  *,
  spacing_mm: float | None,
  **kwargs: Any,
) -> dict[str, jax.Array]:
  """Runs `predict_step` with networks that were trained at one spacing.

  Args:
    variables: as in `predict_step`.
    hu: (B, P, P) HU at the spacing of the scan.
    pixel_spacing_mm: (B,), the spacing of each patch.
    spacing_mm: the spacing that the networks were trained at; None if they were
      trained at the scans' own.
    **kwargs: keyword arguments of `predict_step`.

  Returns:
    The outputs of `predict_step`, on the pixels of hu. Where a patch extends
    beyond what the networks saw at their spacing, probabilities and activations
    are 0.
  """
  if spacing_mm is None:
    return predict_step(variables, hu, **kwargs)
  scale = spacing_mm / pixel_spacing_mm
  outputs = predict_step(variables, augment.resample(hu, scale), **kwargs)
  return {
    key: augment.resample(x, 1 / scale, outside=0.0) if x.ndim == 3 else x
    for key, x in outputs.items()
  }


def as_answer(outputs: Mapping[str, Any]) -> dict[str, Any]:
  """Turns the outputs of `predict_step` into the fields of a prediction.

  Args:
    outputs: 'coarse', 'fine', 'class' and 'cam', as device or host arrays.

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
  """Compiles `predict_step` once, and runs it on batches of one size.

  Predictors with equal arguments share one compiled program.

  Args:
    nets: stage name -> network.
    batch_size: number of patches over all devices; rounded up to a multiple of
      the number of devices.
    precision: of float32 matrix products; see `devices.mapped`.
    **predict_options: keyword arguments of `predict_step`; see `options`.
  """

  def __init__(
    self,
    nets: Mapping[str, nn.Module],
    *,
    batch_size: int,
    precision: str = 'highest',
    **predict_options: Any,
  ):
    devices = devices_lib.device_count()
    self._batch = devices * -(-batch_size // devices)
    self._step = _mapped(
      tuple(sorted(nets.items())),
      precision=precision,
      device=devices_lib.only_device(),
      **predict_options,
    )

  def __call__(
    self,
    variables: Mapping[str, Mapping[str, Any]],
    hu: np.ndarray,
    progress: Callable[[range], Iterable[int]] = lambda batches: batches,
  ) -> dict[str, np.ndarray]:
    """Runs every patch exactly once.

    Args:
      variables: stage name -> variables, replicated over the devices.
      hu: (N, P, P) HU.
      progress: wraps the sequence of batch starts, as tqdm does.

    Returns:
      The outputs of `predict_step` for all N patches, in float32, the same on
      every process.
    """
    parts: list[dict[str, np.ndarray]] = []
    for start in progress(range(0, len(hu), self._batch)):
      part = np.asarray(hu[start : start + self._batch])
      # Pads the last batch to the compiled shape; the padding is cut off below.
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
