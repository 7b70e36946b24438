"""Turns HU patches into network inputs, on the device (paper, section 3.1.2).

Crop, zoom, flips and resampling together are one separable linear map: each
patch is multiplied once, by a matrix for its rows and one for its columns. Each
example has its own random key, so that the number of devices does not change
the views.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """How random views of a patch are drawn.

  Attributes:
    crop_min: smallest side of the square crop, as a fraction of the patch's.
    crop_max: largest side of the crop, as a fraction of the patch's.
    crop_shift: largest shift of the crop's centre along each axis, as a
      fraction of the patch's side minus the crop's.
    zoom: magnification of a zoomed view.
    zoom_probability: probability that a view is zoomed.
    flip_probability: probability of each of the two flips.
  """

  crop_min: float = 0.5
  crop_max: float = 1.0
  crop_shift: float = 0.25
  zoom: float = 1.1
  zoom_probability: float = 0.5
  flip_probability: float = 0.5


def _sampling_matrix(side, centre, flip, *, in_size, out_size):
  """Returns the weights of linear sampling along one axis.

  The output pixels are spread evenly over `side` input pixels around `centre`.
  Beyond the patch, its border pixel is repeated.

  Returns:
    (out_size, in_size) float32.
  """
  # The types are explicit for JAX's strict type promotion.
  steps = jnp.arange(out_size, dtype=jnp.float32) - (out_size - 1) / 2
  steps = jnp.where(flip, -steps, steps)
  positions = jnp.clip(centre + steps * side / out_size, 0.0, in_size - 1.0)
  pixels = jnp.arange(in_size, dtype=jnp.float32)
  distances = jnp.abs(positions[:, None] - pixels[None])
  return jnp.maximum(0.0, 1.0 - distances)


def _resample(patch, rows, columns):
  # By default, accelerators multiply float32 in a shorter type, in which small
  # differences in HU would be lost.
  return jnp.einsum('oh,hw,pw->op', rows, patch, columns, precision='highest')


def _window(hu, low, high):
  return jnp.clip((hu - low) / (high - low), 0, 1) * 2 - 1


def _view(key, plain, image, mask, *, augmentation, size, window):
  """Returns one view of a patch and its mask, both (S, S)."""
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


def training_views(
  keys: jax.Array,
  plain: jax.Array,
  image: jax.Array,
  mask: jax.Array,
  *,
  augmentation: Augmentation,
  size: int,
  window: tuple[float, float],
) -> tuple[jax.Array, jax.Array]:
  """Returns random views of a batch of patches.

  Args:
    keys: (B,) one random key per example.
    plain: (B,) bool; true for the patch without augmentation.
    image: (B, P, P) HU.
    mask: (B, P, P) of 0 and 1.
    augmentation: how the views are drawn.
    size: S, side of the network's input.
    window: (low, high) HU that become -1 and 1.

  Returns:
    Images (B, S, S, 3) in [-1, 1] with three equal channels, and masks
    (B, S, S, 1) of 0 and 1, both float32.
  """
  view = functools.partial(
    _view, augmentation=augmentation, size=size, window=window
  )
  image, mask = jax.vmap(view)(keys, plain, image, mask)
  # Without the barrier, XLA's CPU backend recomputes the views in every loop
  # that reads them, including those of the gradients.
  image, mask = jax.lax.optimization_barrier((image, mask))
  return _three_channels(image), mask[..., None]


def plain_images(
  image: jax.Array, *, size: int, window: tuple[float, float]
) -> jax.Array:
  """Returns patches without augmentation, as network inputs.

  Args:
    image: (B, P, P) HU.
    size: S, side of the network's input.
    window: (low, high) HU that become -1 and 1.

  Returns:
    (B, S, S, 3) in [-1, 1], float32, three equal channels.
  """
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


def to_patch_grid(maps: jax.Array, patch_size: int) -> jax.Array:
  """Resamples maps (B, S, S) to the pixels of the patch (B, P, P).

  Where the patch is smaller, the pixels of the map are averaged.

  Args:
    maps: (B, S, S).
    patch_size: P.
  """
  return jax.image.resize(
    maps, (maps.shape[0], patch_size, patch_size), 'linear', antialias=True
  )


def resample(
  maps: jax.Array, scale: jax.Array, *, outside: float | None = None
) -> jax.Array:
  """Resamples maps around their centre, each by its own factor.

  This is how the dataset resamples patches to a policy's spacing: linearly
  around pixel P // 2, with averaging where the map shrinks.

  Args:
    maps: (B, P, P).
    scale: (B,) pixels of the map per pixel of the result.
    outside: value of pixels whose centre lies outside the map; None repeats the
      border.

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
