"""Views: their geometry is read off ramps, the rest is compared with SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from mtnet_jax.data import augment

_P, _S = 16, 24
_IDENTITY = augment.Augmentation(
  crop_min=1.0, crop_max=1.0, zoom_probability=0.0, flip_probability=0.0
)


@functools.partial(jax.jit, static_argnames=('augmentation', 'size', 'window'))
def _training_views(
  seeds, plain, image, mask, *, augmentation, size=_S, window=(0.0, 16.0)
):
  keys = jax.vmap(jax.random.key)(seeds)
  return augment.training_views(
    keys,
    plain,
    image,
    mask,
    augmentation=augmentation,
    size=size,
    window=window,
  )


def _views(image, mask=None, *, seeds=None, plain=False, **kwargs):
  image = jnp.asarray(image)
  count = len(image)
  return _training_views(
    jnp.arange(count) if seeds is None else jnp.asarray(seeds),
    jnp.broadcast_to(jnp.asarray(plain), (count,)),
    image,
    jnp.zeros_like(image) if mask is None else jnp.asarray(mask),
    **kwargs,
  )


def _half_pixel_bilinear(patch, size):
  """Resizes bilinearly by pixel centres; border pixels are repeated."""
  at = (np.arange(size) + 0.5) * len(patch) / size - 0.5
  grid = np.meshgrid(at, at, indexing='ij')
  return ndimage.map_coordinates(
    patch.astype(np.float64), grid, order=1, mode='nearest'
  )


def _positions(count, augmentation):
  """Returns the row and column of the patch that each pixel of a view samples.

  The images are a ramp along the rows or the columns: HU is the position, and
  the window (0, 16) of `_views` makes it 2 * HU / 16 - 1.
  """
  rows = np.broadcast_to(np.arange(_P, dtype=np.float32)[:, None], (_P, _P))
  decoded = []
  for ramp in (rows, rows.T):
    images, _ = _views(
      np.broadcast_to(ramp, (count, _P, _P)), augmentation=augmentation
    )
    decoded.append((np.asarray(images[..., 0]) + 1) * 8)
  return decoded[0][:, :, 0], decoded[1][:, 0, :]


def test_plain_view_is_a_bilinear_resize():
  rng = np.random.default_rng(0)
  hu = rng.integers(-1200, 600, (2, _P, _P)).astype(np.int16)
  mask = (rng.random((2, _P, _P)) < 0.5).astype(np.uint8)
  window = (-1000.0, 400.0)
  images, masks = _views(
    hu,
    mask,
    plain=True,
    augmentation=augment.Augmentation(),
    window=window,
  )
  assert images.shape == (2, _S, _S, 3) and masks.shape == (2, _S, _S, 1)
  assert images.dtype == masks.dtype == jnp.float32
  plain = augment.plain_images(jnp.asarray(hu), size=_S, window=window)
  for i in range(2):
    expected = _half_pixel_bilinear(hu[i], _S)
    expected = np.clip((expected + 1000) / 1400, 0, 1) * 2 - 1
    for channel in range(3):
      np.testing.assert_allclose(images[i, ..., channel], expected, atol=1e-5)
      np.testing.assert_allclose(plain[i, ..., channel], expected, atol=1e-5)
    covered = _half_pixel_bilinear(mask[i], _S)
    # Some values are exactly 1/2, where rounding decides.
    clear = np.abs(covered - 0.5) > 1e-5
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(masks[i, clear, 0], covered[clear] > 0.5)


def test_plain_images_at_their_own_size_are_only_windowed():
  # -1000 becomes -1, -300 is half-way, 400 becomes 1; others are clipped.
  hu = np.array([[-3024, -1000], [-300, 5892]], np.int16)
  images = augment.plain_images(
    jnp.asarray(hu)[None], size=2, window=(-1000, 400)
  )
  np.testing.assert_allclose(images[0, ..., 0], [[-1, -1], [0, 1]], atol=1e-6)


def test_a_plain_view_ignores_its_key():
  rng = np.random.default_rng(0)
  hu = np.repeat(rng.uniform(0, 16, (1, _P, _P)), 2, axis=0)
  images, _ = _views(
    hu, seeds=[3, 4], plain=True, augmentation=augment.Augmentation()
  )
  np.testing.assert_array_equal(images[0], images[1])
  images, _ = _views(hu, seeds=[3, 4], augmentation=augment.Augmentation())
  assert np.abs(images[0] - images[1]).max() > 0.1


def test_certain_flips_turn_the_patch_around():
  rng = np.random.default_rng(0)
  hu = rng.uniform(0, 16, (2, _P, _P))
  mask = (rng.random((2, _P, _P)) < 0.5).astype(np.uint8)
  flipped = augment.Augmentation(
    crop_min=1.0, crop_max=1.0, zoom_probability=0.0, flip_probability=1.0
  )
  images, masks = _views(hu, mask, augmentation=flipped)
  expected, expected_masks = _views(hu, mask, augmentation=_IDENTITY)
  np.testing.assert_allclose(images, expected[:, ::-1, ::-1], atol=1e-5)
  # Where the interpolated mask is exactly 1/2, rounding decides.
  assert np.mean(masks != expected_masks[:, ::-1, ::-1]) < 0.01


def test_crops_keep_their_bounds():
  # The side is 50 to 80 % of 16 pixels, uniformly. The centre moves by at most
  # 40 % of the rest, so that no border pixel is repeated.
  rows, columns = _positions(
    300,
    augment.Augmentation(
      crop_min=0.5,
      crop_max=0.8,
      crop_shift=0.4,
      zoom_probability=0.0,
      flip_probability=0.0,
    ),
  )
  spans = []
  for at in (rows, columns):
    steps = np.diff(at, axis=1)
    np.testing.assert_allclose(steps, steps[:, :1] + 0 * steps, atol=1e-4)
    share = steps[:, 0] * _S / _P
    assert 0.5 - 1e-4 <= share.min() < 0.52 and 0.78 < share.max() <= 0.8001
    spans.append(share)
    centre = at.mean(1) - (_P - 1) / 2
    moved = centre / ((1 - share) * _P)
    assert np.abs(moved).max() <= 0.4 + 1e-4
    assert moved.min() < -0.35 and moved.max() > 0.35
    assert abs(moved.mean()) < 0.05  # s.d. of the mean .23 / sqrt(300)
  np.testing.assert_allclose(*spans, atol=1e-4)  # square
  assert abs(np.mean(spans[0]) - 0.65) < 0.02
  # The shifts along the two axes are independent.
  moved = [at.mean(1) - (_P - 1) / 2 for at in (rows, columns)]
  assert abs(np.corrcoef(*moved)[0, 1]) < 0.2


def test_default_views_zoom_and_flip_half_of_the_time():
  count = 400
  rows, columns = _positions(count, augment.Augmentation())
  for at in (rows, columns):
    flipped = np.diff(at, axis=1)[:, 0] < 0
    assert 0.42 < flipped.mean() < 0.58  # s.d. 2.5 %
    # No position lies outside the patch.
    assert at.min() >= 0 and at.max() <= _P - 1
  row_flips, column_flips = (
    np.diff(at, axis=1)[:, 0] < 0 for at in (rows, columns)
  )
  both = (row_flips & column_flips).mean()
  assert 0.18 < both < 0.32  # a quarter: the flips are independent
  fixed_crop = augment.Augmentation(
    crop_min=0.5, crop_max=0.5, crop_shift=0.0, flip_probability=0.0
  )
  rows, _ = _positions(count, fixed_crop)
  share = np.diff(rows, axis=1)[:, 0] * _S / _P
  zoomed = share < 0.48
  assert 0.42 < zoomed.mean() < 0.58
  np.testing.assert_allclose(share[zoomed], 0.5 / 1.1, rtol=1e-3)
  np.testing.assert_allclose(share[~zoomed], 0.5, rtol=1e-3)


def test_zoom_magnifies_the_middle():
  # With a zoom of 2, the positions are (j - 11.5) * 16 / 24 / 2 around 7.5.
  rows, _ = _positions(
    1,
    augment.Augmentation(
      crop_min=1.0,
      crop_max=1.0,
      zoom=2.0,
      zoom_probability=1.0,
      flip_probability=0.0,
    ),
  )
  np.testing.assert_allclose(
    rows[0], 7.5 + (np.arange(24) - 11.5) / 3, atol=1e-4
  )


def test_a_view_depends_on_its_key_and_not_on_its_position():
  rng = np.random.default_rng(0)
  hu = rng.uniform(0, 16, (6, _P, _P))
  mask = (rng.random((6, _P, _P)) < 0.5).astype(np.uint8)
  plain = np.array([False, True, False, False, False, True])
  seeds = np.arange(6) + 10
  options = {'augmentation': augment.Augmentation()}
  together = _views(hu, mask, seeds=seeds, plain=plain, **options)
  order = np.array([4, 2, 5, 0, 3, 1])
  shuffled = _views(
    hu[order], mask[order], seeds=seeds[order], plain=plain[order], **options
  )
  alone = _views(hu[4:5], mask[4:5], seeds=seeds[4:5], **options)
  for whole, other, one in zip(together, shuffled, alone, strict=True):
    np.testing.assert_allclose(whole[order], other, atol=1e-5)
    np.testing.assert_allclose(whole[4], one[0], atol=1e-5)


def test_mask_and_image_stay_aligned():
  # An image that is its mask times a power of two has the same sums: where it
  # is at least half of the window, the mask must be 1.
  rng = np.random.default_rng(0)
  mask = (rng.random((32, _P, _P)) < 0.5).astype(np.uint8)
  images, masks = _views(
    mask.astype(np.float32) * 16,
    mask,
    augmentation=augment.Augmentation(),
  )
  np.testing.assert_array_equal(masks, images[..., :1] >= 0)
  assert 0.3 < float(masks.mean()) < 0.7


def test_constant_attenuation_stays_constant():
  # 4 of the window (0, 16) is 2 * 4 / 16 - 1.
  images, masks = _views(
    np.full((32, _P, _P), 4, np.int16),
    np.ones((32, _P, _P), np.uint8),
    augmentation=augment.Augmentation(),
  )
  np.testing.assert_allclose(images, -0.5, atol=1e-5)
  np.testing.assert_array_equal(masks, 1)


def test_defaults_are_the_documented_ones():
  assert augment.Augmentation() == augment.Augmentation(
    crop_min=0.5,
    crop_max=1.0,
    crop_shift=0.25,
    zoom=1.1,
    zoom_probability=0.5,
    flip_probability=0.5,
  )


def test_maps_come_back_to_the_patch_grid():
  constant = augment.to_patch_grid(jnp.full((2, 9, 9), 0.25), 4)
  assert constant.shape == (2, 4, 4)
  np.testing.assert_allclose(constant, 0.25, atol=1e-6)
  # A ramp over 12 pixels; patch pixel j covers 3j .. 3j + 2, whose mean is
  # 3j + 1. At the border the average is one-sided.
  ramp = jnp.broadcast_to(jnp.arange(12.0), (1, 12, 12))
  back = augment.to_patch_grid(ramp, 4)
  np.testing.assert_allclose(back[0, :, 1], 4, atol=1e-4)
  np.testing.assert_allclose(back[0, :, 2], 7, atol=1e-4)


def test_maps_are_averaged_and_not_picked():
  # One bright pixel of 8 x 8 adds 1/4 to the sum over 4 x 4 pixels, each of
  # which is the mean of four.
  bright = jnp.zeros((1, 8, 8)).at[0, 3, 4].set(1.0)
  back = augment.to_patch_grid(bright, 4)
  np.testing.assert_allclose(back.sum(), 0.25, atol=1e-5)
