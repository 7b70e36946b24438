"""From HU patches to network inputs, on the device (paper, section 3.1.2).

Crop, zoom, flips and resampling are one separable linear map, so each image is
touched once: rows matrix x patch x columns matrix. Random numbers come from
one key per example, never per batch, so that the number of devices changes
nothing.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How a view differs from the plain patch.

  Attributes:
    crop_min, crop_max: side of the square crop, as a share of the patch.
    crop_shift: how far its centre moves, at most, as a share of the slack.
    zoom: magnification.
    zoom_probability: how often it is applied.
    flip_probability: of each of the two flips.
  """

  crop_min: float = 0.5
  crop_max: float = 1.0
  crop_shift: float = 0.25
  zoom: float = 1.1
  zoom_probability: float = 0.5
  flip_probability: float = 0.5


def _sampling_matrix(side, centre, flip, *, in_size, out_size):
  """(out_size, in_size) weights of bilinear sampling along one axis.

  Output pixel centres are spread evenly over `side` input pixels around
  `centre`; outside, the border pixel repeats.
  """
  # Types are given, as JAX's strict promotion of types wants them.
  steps = jnp.arange(out_size, dtype=jnp.float32) - (out_size - 1) / 2
  steps = jnp.where(flip, -steps, steps)
  positions = jnp.clip(centre + steps * side / out_size, 0.0, in_size - 1.0)
  pixels = jnp.arange(in_size, dtype=jnp.float32)
  distances = jnp.abs(positions[:, None] - pixels[None])
  return jnp.maximum(0.0, 1.0 - distances)


def _resample(patch, rows, columns):
  # Full float32: HU differences of a few units matter, and accelerators would
  # otherwise multiply in a shorter type.
  return jnp.einsum('oh,hw,pw->op', rows, patch, columns, precision='highest')


def _window(hu, low, high):
  return jnp.clip((hu - low) / (high - low), 0, 1) * 2 - 1


def _view(key, plain, image, mask, *, augmentation, size, window):
  in_size = image.shape[0]
  keys = jax.random.split(key, 4)
  uniform = jax.random.uniform
  share = uniform(
    keys[0], minval=augmentation.crop_min, maxval=augmentation.crop_max
  )
  slack = (1 - share) * in_size
  shift = augmentation.crop_shift * slack
  offsets = uniform(keys[1], (2,), minval=-1.0, maxval=1.0) * shift
  zoomed = uniform(keys[2]) < augmentation.zoom_probability
  side = share * in_size / jnp.where(zoomed, augmentation.zoom, 1.0)
  flips = uniform(keys[3], (2,)) < augmentation.flip_probability

  side = jnp.where(plain, in_size, side)
  centres = (in_size - 1) / 2 + jnp.where(plain, 0.0, offsets)
  flips = flips & ~plain
  rows, columns = (
    _sampling_matrix(side, centres[i], flips[i], in_size=in_size, out_size=size)
    for i in range(2)
  )
  image = _resample(image.astype(jnp.float32), rows, columns)
  mask = _resample(mask.astype(jnp.float32), rows, columns) >= 0.5
  return _window(image, *window), mask.astype(jnp.float32)


def training_views(keys, plain, image, mask, *, augmentation, size, window):
  """Random views of a batch of patches.

  Args:
    keys: (B,) one random key per example.
    plain: (B,) bool; true for the patch as it is.
    image: (B, P, P) HU.
    mask: (B, P, P) of 0 and 1.
    augmentation: an `Augmentation`.
    size: S, side of the network's input.
    window: (low, high) HU that become -1 and 1.

  Returns:
    images (B, S, S, 3) in [-1, 1], three equal channels, and masks
    (B, S, S, 1) of 0 and 1, float32.
  """
  view = functools.partial(
    _view, augmentation=augmentation, size=size, window=window
  )
  image, mask = jax.vmap(view)(keys, plain, image, mask)
  # Without it XLA's CPU backend computes the views again inside every loop
  # that reads them, gradients included.
  image, mask = jax.lax.optimization_barrier((image, mask))
  return _three_channels(image), mask[..., None]


def plain_images(image, *, size, window):
  """Patches as they are: (B, P, P) HU -> (B, S, S, 3) in [-1, 1]."""
  in_size = image.shape[1]
  matrix = _sampling_matrix(
    in_size, (in_size - 1) / 2, False, in_size=in_size, out_size=size
  )
  image = jax.vmap(_resample, (0, None, None))(
    image.astype(jnp.float32), matrix, matrix
  )
  return _three_channels(_window(image, *window))


def _three_channels(image):
  return jnp.repeat(image[..., None], 3, axis=-1)


def to_patch_grid(maps, patch_size):
  """Averages maps (B, S, S) back onto the patch's own pixels (B, P, P)."""
  return jax.image.resize(
    maps, (maps.shape[0], patch_size, patch_size), 'linear', antialias=True
  )


def resample(maps, scale, *, outside=None):
  """Resamples maps about their middle, each by a factor of its own.

  As the dataset does where its policy has a spacing: linear about pixel P/2,
  averaging where it shrinks.

  Args:
    maps: (B, P, P).
    scale: (B,) pixels of the maps per pixel of the result.
    outside: what a result's pixel is whose centre lies beyond the map; None
      repeats the border.

  Returns:
    (B, P, P) float32.
  """
  size = maps.shape[1]
  pixels = jnp.arange(size)
  at = (pixels - size // 2) * scale[:, None] + size // 2  # (B, P)
  distances = jnp.abs(jnp.clip(at, 0, size - 1)[..., None] - pixels)
  weights = jnp.maximum(
    0.0, 1.0 - distances / jnp.maximum(scale, 1.0)[:, None, None]
  )
  weights /= weights.sum(-1, keepdims=True)
  resampled = jnp.einsum(
    'boh,bhw,bpw->bop',
    weights,
    maps.astype(jnp.float32),
    weights,
    precision='highest',
  )
  if outside is None:
    return resampled
  inside = (at >= -0.5) & (at <= size - 0.5)
  return jnp.where(inside[:, :, None] & inside[:, None, :], resampled, outside)
