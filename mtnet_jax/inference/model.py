"""The trained networks as one model: HU patches in, masks, malignancy out."""

import functools
import hashlib
import warnings

import flax.errors
import jax
import numpy as np

from mtnet_jax.inference import prediction
from mtnet_jax.models import nets
from mtnet_jax.models import predictor
from mtnet_jax.storage import tensors
from mtnet_jax.system import devices
from mtnet_jax.system import errors

PATCH_SIZE = 64
# Padding of scanners and metal stay inside; values that are not HU do not.
_HU_RANGE = (-20_000, 70_000)
# A windowed image lies within 1, z-scores within 20; the noise of CT does not.
_MAX_SCALED = 20
_SPACING_RANGE_MM = (0.1, 5.0)


class Model:
  """The three trained networks, on this process's first device.

  Attributes:
    name: that of the run it comes from.
    config: the run's, a locked `ConfigDict`.
    metrics: the run's metrics.json, a dict.
    card: the model card, Markdown.
    simulated: whether it was trained on SIMULATED attenuation.
    spacing_mm: in-plane spacing that patches are resampled to; None where they
      are not resampled.
    variables: stage name -> {'params', 'batch_stats'}, on the device.
    temperature: by which logits of malignancy are divided: calibrated on
      validation nodules, or 1.
    seen: the nodules and patients that it was trained on or chosen by, a
      `storage.seen.Seen`; None where no list was kept.
    predict_fn: the pure function behind `predict`, as `jax.export` wants it.
  """

  # One output for each patch, see `ensemble.Ensemble`.
  symmetries = False

  def __init__(
    self,
    *,
    name,
    config,
    metrics,
    card,
    variables,
    temperature=1.0,
    seen=None,
  ):
    missing = {*nets.ORDER, *nets.names(config)} - variables.keys()
    if missing:
      raise errors.InputError(
        f'{name}: no weights of {" and ".join(sorted(missing))}.'
      )
    self.name = name
    self.config = config
    self.metrics = metrics
    self.card = card
    self.simulated = bool(metrics['simulated'])
    self.spacing_mm = config.dataset.get('spacing_mm', 0.0) or None
    self.temperature = temperature
    self.seen = seen
    # Weights of 16 bits save space on disk; networks compute in their own type.
    self.variables = jax.device_put(
      jax.tree.map(lambda x: np.asarray(x, np.float32), variables)
    )
    # (variables, (B, 64, 64) HU, (B,) mm) -> outputs of `predict_step`.
    self.predict_fn, self._step = _functions(
      tuple(sorted(nets.make_nets(config).items())),
      precision=config.matmul_precision,
      spacing_mm=self.spacing_mm,
      temperature=temperature,
      **predictor.options(config),
    )

  def __repr__(self):
    data = 'SIMULATED CT' if self.simulated else 'CT'
    return f'<mtnet_jax model {self.name!r}, trained on {data}>'

  @functools.cached_property
  def fingerprint(self):
    """A hash of what the answers follow from: config and weights."""
    settings = f'{self.config.to_json(sort_keys=True)} {self.temperature}'
    weights = tensors.digest(self.variables)
    return hashlib.sha256(f'{settings} {weights}'.encode()).hexdigest()[:16]

  def predict(self, hu, pixel_spacing_mm):
    """Segments and classifies the nodules in the middle of patches.

    Patches run in batches of `config.eval_batch_size`; the last one is filled
    up to a power of two. Each size is compiled when it first occurs.

    Args:
      hu: (N, 64, 64) attenuation in HU, not windowed, at the spacing of the
        scan, the nodule in the middle (pixel 32, 32).
      pixel_spacing_mm: in-plane spacing, a number or (N,).

    Returns:
      A `Prediction` of NumPy arrays.

    Raises:
      errors.InputError: the arguments cannot be such patches.
    """
    return prediction.Prediction(
      **predictor.as_answer(self.outputs(hu, pixel_spacing_mm))
    )

  def outputs(self, hu, pixel_spacing_mm):
    """The probabilities behind `predict`, of `predictor.predict_step`."""
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
    count = len(hu)
    fill = [(0, size - count)]
    hu = np.pad(hu, fill + [(0, 0)] * 2, mode='edge')
    spacing_mm = np.pad(spacing_mm, fill, mode='edge')
    try:
      outputs = self._step(self.variables, hu, spacing_mm)
    except flax.errors.FlaxError as error:
      raise errors.InputError(
        f'{self.name}: weights and config do not belong together'
        f' ({str(error).splitlines()[0]}). Get the model again.'
      ) from error
    return {
      key: np.asarray(x[:count], np.float32)
      for key, x in jax.device_get(outputs).items()
    }


@functools.lru_cache(maxsize=8)
def _functions(networks, *, precision, **options):
  """`predict_at_spacing` of some networks as it is, and jitted.

  Members of an ensemble share them, and with them what is compiled.
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


def batch_sizes(count, max_size):
  """Sizes of batches: `max_size`, and a power of two for the remainder."""
  full, remainder = divmod(count, max_size)
  sizes = [max_size] * full
  if remainder:
    sizes.append(min(max_size, 1 << (remainder - 1).bit_length()))
  return sizes


def check_hu(hu):
  """Checks HU and returns them as (N, 64, 64) float32.

  Raises:
    errors.InputError: they are no HU; the message says why, and what would be.
  """
  hu = np.asarray(hu)
  shape = f'(N, {PATCH_SIZE}, {PATCH_SIZE})'
  if hu.ndim != 3 or hu.shape[1:] != (PATCH_SIZE, PATCH_SIZE) or not len(hu):
    hint = ''
    if hu.shape == (PATCH_SIZE, PATCH_SIZE):
      hint = ': one patch is hu[None]'
    elif hu.shape[1:] == (PATCH_SIZE, PATCH_SIZE, 1):
      hint = ': leave the channel out, hu[..., 0]'
    raise errors.InputError(f'hu is {hu.shape}, not {shape}{hint}.')
  if hu.dtype.kind not in 'iuf':
    raise errors.InputError(f'hu is of type {hu.dtype}, not of numbers.')
  if not np.isfinite(hu).all():
    raise errors.InputError('hu holds NaN or infinity: clean it first.')
  low, high = float(hu.min()), float(hu.max())
  if low < _HU_RANGE[0] or high > _HU_RANGE[1]:
    raise errors.InputError(
      f'hu goes from {low:g} to {high:g}: these are no HU.'
    )
  largest = np.abs(hu).max(axis=(1, 2))
  scaled = np.flatnonzero(largest <= _MAX_SCALED)
  if len(scaled):
    raise errors.InputError(
      f'hu[{scaled[0]}] lies between -{largest[scaled[0]]:.3g} and'
      f' {largest[scaled[0]]:.3g}, as a windowed image does, or a normalised'
      ' one: give HU, about -1000 (air) to 1000; the model has its own window.'
    )
  if low >= 0:
    warnings.warn(
      f'hu goes from {low:g} to {high:g}, nowhere below 0, although lung is'
      ' about -900 HU: are these stored values, without the rescale slope and'
      ' intercept?',
      stacklevel=3,
    )
  return hu.astype(np.float32)


def check_spacing(pixel_spacing_mm, count):
  """Checks one spacing, or N, and returns them as (N,) float32.

  Raises:
    errors.InputError: it is neither, or no spacing of a CT.
  """
  try:
    spacing_mm = np.asarray(pixel_spacing_mm, np.float32)
  except (TypeError, ValueError) as error:
    raise errors.InputError(
      f'pixel_spacing_mm={pixel_spacing_mm!r} is no number.'
    ) from error
  if spacing_mm.shape not in ((), (count,)):
    raise errors.InputError(
      f'pixel_spacing_mm has the shape {spacing_mm.shape}: give one number, or'
      f' one for each of the {count} patches (rows and columns have the same).'
    )
  low, high = _SPACING_RANGE_MM
  # Written so that NaN fails.
  wrong = spacing_mm[~((spacing_mm >= low) & (spacing_mm <= high))]
  if wrong.size:
    raise errors.InputError(
      f'pixel_spacing_mm={wrong.flat[0]:g} is not between {low} and {high} mm.'
    )
  return np.broadcast_to(spacing_mm, (count,))
