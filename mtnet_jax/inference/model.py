"""A trained MT-Net: HU patches in, masks and probability of malignancy out."""

from __future__ import annotations  # for pydoc, which spells ArrayLike out

from collections.abc import Callable
from collections.abc import Mapping
import functools
import hashlib
from typing import Any
import warnings

from flax import linen as nn
import flax.errors
import jax
from jax.typing import ArrayLike
import ml_collections
import numpy as np

from mtnet_jax.inference import prediction
from mtnet_jax.models import nets
from mtnet_jax.models import predictor
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import tensors
from mtnet_jax.system import devices
from mtnet_jax.system import errors

PATCH_SIZE = 64
# Wide enough for scanners' padding values and for metal.
_HU_RANGE = (-20_000, 70_000)
# Windowed images have magnitudes up to 1 and z-scores up to 20; a CT patch
# exceeds this by its noise alone.
_MAX_SCALED = 20
_SPACING_RANGE_MM = (0.1, 5.0)


class Model:
  """The three trained networks, on this process's first device.

  Attributes:
    name: name of the run or bundle that the model comes from.
    config: config of the run, locked.
    metrics: metrics.json of the run.
    card: model card, Markdown.
    simulated: whether the model was trained on SIMULATED attenuation.
    spacing_mm: in-plane spacing that patches are resampled to; None if they are
      not resampled.
    variables: stage name -> {'params', 'batch_stats'}, on the device.
    temperature: divisor of the logits of malignancy: calibrated on validation
      nodules, or 1.
    seen: nodules and patients used in training or model selection; None if no
      list was kept.
    predict_fn: pure function behind `predict`, which `jax.export` can trace.
  """

  # Each patch gives one output; see `ensemble.Ensemble`.
  symmetries = False

  def __init__(
    self,
    *,
    name: str,
    config: ml_collections.ConfigDict,
    metrics: dict[str, Any],
    card: str,
    variables: Mapping[str, Any],
    temperature: float = 1.0,
    seen: seen_lib.Seen | None = None,
  ):
    missing = {*nets.ORDER, *nets.names(config)} - variables.keys()
    if missing:
      raise errors.InputError(
        f'{name}: no weights of {" and ".join(sorted(missing))}. Get the model'
        ' again.'
      )
    self.name = name
    self.config = config
    self.metrics = metrics
    self.card = card
    self.simulated = bool(metrics['simulated'])
    self.spacing_mm = config.dataset.get('spacing_mm', 0.0) or None
    self.temperature = temperature
    self.seen = seen
    # Half-precision weights only save disk space: networks compute in the dtype
    # of their config.
    self.variables: dict[str, Any] = jax.device_put(
      jax.tree.map(lambda x: np.asarray(x, np.float32), variables)
    )
    # (variables, (B, 64, 64) HU, (B,) mm) -> outputs of `predict_step`.
    self.predict_fn, self._step = _prediction_fns(
      tuple(sorted(nets.make_nets(config).items())),
      precision=config.matmul_precision,
      spacing_mm=self.spacing_mm,
      temperature=temperature,
      **predictor.options(config),
    )

  def __repr__(self) -> str:
    data = 'SIMULATED CT' if self.simulated else 'CT'
    return f'<mtnet_jax model {self.name!r}, trained on {data}>'

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of all that determines the predictions: config and weights."""
    settings = f'{self.config.to_json(sort_keys=True)} {self.temperature}'
    weights = tensors.digest(self.variables)
    return hashlib.sha256(f'{settings} {weights}'.encode()).hexdigest()[:16]

  def predict(
    self, hu: ArrayLike, pixel_spacing_mm: ArrayLike
  ) -> prediction.Prediction:
    """Segments and classifies the nodules at the centres of patches.

    Patches run in batches of `config.eval_batch_size`; the last batch is padded
    to a power of two. Each batch size compiles on first use.

    Args:
      hu: (N, 64, 64) attenuation in HU, not windowed, at the spacing of the
        scan, with the nodule at the centre (pixel 32, 32).
      pixel_spacing_mm: in-plane spacing, a number or (N,).

    Returns:
      A `Prediction` of NumPy arrays.

    Raises:
      errors.InputError: the arguments are not patches in HU or not spacings.
    """
    return prediction.Prediction(
      **predictor.as_answer(self.outputs(hu, pixel_spacing_mm))
    )

  def outputs(
    self, hu: ArrayLike, pixel_spacing_mm: ArrayLike
  ) -> dict[str, np.ndarray]:
    """Returns the probabilities behind `predict`; see `predictor.predict_step`.

    Args and errors are those of `predict`.
    """
    hu = check_hu(hu)
    spacing_mm = check_spacing(pixel_spacing_mm, len(hu))
    parts, start = [], 0
    for size in batch_sizes(len(hu), self.config.eval_batch_size):
      part = slice(start, start + size)
      parts.append(self._run(hu[part], spacing_mm[part], size))
      start += size
    return {
      key: np.concatenate([part[key] for part in parts]) for key in parts[0]
    }

  def _run(self, hu, spacing_mm, size):
    """Runs one batch, padded to `size`, and drops the padding again."""
    num_patches = len(hu)
    padding = [(0, size - num_patches)]
    hu = np.pad(hu, padding + [(0, 0)] * 2, mode='edge')
    spacing_mm = np.pad(spacing_mm, padding, mode='edge')
    try:
      outputs = self._step(self.variables, hu, spacing_mm)
    except flax.errors.FlaxError as error:
      raise errors.InputError(
        f'{self.name}: weights and config do not belong together'
        f' ({str(error).splitlines()[0]}). Get the model again.'
      ) from error
    return {
      key: np.asarray(x[:num_patches], np.float32)
      for key, x in jax.device_get(outputs).items()
    }


@functools.lru_cache(maxsize=8)
def _prediction_fns(
  networks: tuple[tuple[str, nn.Module], ...], *, precision: str, **options: Any
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Returns `predict_at_spacing` for some networks, plain and jitted.

  The cache lets the members of an ensemble share compiled programs.
  """
  predict_fn = devices.at_precision(
    functools.partial(
      predictor.predict_at_spacing, nets=dict(networks), **options
    ),
    precision,
  )
  return predict_fn, jax.jit(
    predict_fn, compiler_options=devices.forward_options()
  )


def batch_sizes(num_patches: int, max_size: int) -> list[int]:
  """Returns batch sizes: `max_size`, then a power of two for the remainder."""
  num_full, remainder = divmod(num_patches, max_size)
  sizes = [max_size] * num_full
  if remainder:
    sizes.append(min(max_size, 1 << (remainder - 1).bit_length()))
  return sizes


def check_hu(hu: ArrayLike) -> np.ndarray:
  """Checks HU and returns them as (N, 64, 64) float32.

  Warns if no value is negative, as in stored values that were not rescaled.

  Raises:
    errors.InputError: the values or their shape cannot be patches in HU; the
      message says why, and what is expected.
  """
  hu = np.asarray(hu)
  shape = f'(N, {PATCH_SIZE}, {PATCH_SIZE})'
  if hu.ndim != 3 or hu.shape[1:] != (PATCH_SIZE, PATCH_SIZE) or not len(hu):
    hint = ''
    if hu.shape == (PATCH_SIZE, PATCH_SIZE):
      hint = ': for one patch, pass hu[None]'
    elif hu.shape[1:] == (PATCH_SIZE, PATCH_SIZE, 1):
      hint = ': drop the channel axis, hu[..., 0]'
    raise errors.InputError(f'hu has shape {hu.shape}, not {shape}{hint}.')
  if hu.dtype.kind not in 'iuf':
    raise errors.InputError(
      f'hu has dtype {hu.dtype}: pass integers or floating-point numbers.'
    )
  if not np.isfinite(hu).all():
    raise errors.InputError(
      'hu contains NaN or infinity: replace these values first.'
    )
  low, high = float(hu.min()), float(hu.max())
  if low < _HU_RANGE[0] or high > _HU_RANGE[1]:
    raise errors.InputError(
      f'hu ranges from {low:g} to {high:g}: these are not HU. Apply the rescale'
      ' slope and intercept of the scan.'
    )
  largest = np.abs(hu).max(axis=(1, 2))
  scaled = np.flatnonzero(largest <= _MAX_SCALED)
  if len(scaled):
    raise errors.InputError(
      f'hu[{scaled[0]}] lies between -{largest[scaled[0]]:.3g} and'
      f' {largest[scaled[0]]:.3g}, like a windowed or normalised image: pass'
      ' HU, about -1000 (air) to 1000; the model applies its own window.'
    )
  if low >= 0:
    warnings.warn(
      f'hu ranges from {low:g} to {high:g} without a negative value, but lung'
      ' is about -900 HU: are these stored values without the rescale slope'
      ' and intercept?',
      stacklevel=3,
    )
  return hu.astype(np.float32)


def check_spacing(pixel_spacing_mm: ArrayLike, num_patches: int) -> np.ndarray:
  """Checks one spacing, or one per patch, and returns them as (N,) float32.

  Args:
    pixel_spacing_mm: a number or (N,).
    num_patches: N.

  Raises:
    errors.InputError: the shape is another, or a value is not a spacing of CT.
  """
  try:
    spacing_mm = np.asarray(pixel_spacing_mm, np.float32)
  except (TypeError, ValueError) as error:
    raise errors.InputError(
      f'pixel_spacing_mm={pixel_spacing_mm!r} is not a number: pass the spacing'
      ' in mm.'
    ) from error
  if spacing_mm.shape not in ((), (num_patches,)):
    raise errors.InputError(
      f'pixel_spacing_mm has shape {spacing_mm.shape}: pass one number, or one'
      f' for each of the {num_patches} patches (rows and columns share it).'
    )
  low, high = _SPACING_RANGE_MM
  # The comparisons are negated so that NaN counts as wrong.
  wrong = spacing_mm[~((spacing_mm >= low) & (spacing_mm <= high))]
  if wrong.size:
    raise errors.InputError(
      f'pixel_spacing_mm={wrong.flat[0]:g} is not between {low} and {high} mm:'
      ' pass the in-plane spacing in mm.'
    )
  return np.broadcast_to(spacing_mm, (num_patches,))
