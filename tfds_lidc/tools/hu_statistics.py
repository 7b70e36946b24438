"""What the attenuation of patches looks like in numbers, real or SIMULATED.

The regions are those in which the levels that `phantom` aims at were measured
in real scans: a pixel belongs to the nodule here if half of the readers marked
it, and layers are counted in steps to the four neighbours.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfds_lidc.nodules import patches

CORE_PX = 2  # the core: what is left when so many layers are peeled off
RING_PX = (1, 4)  # the ring: from beyond the first to the fourth layer around
FAR_PX = 6  # the lung: farther than this from any reader's mark, ...
DENSE_HU, CLEAR_PX = -500.0, 2  # ... and farther than this from what is denser
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

TEXTURE_PX = 12  # side of the windows in which texture is measured
QUIET_SHARE = 0.3  # of the windows: those without vessels to speak of


class Regions(NamedTuple):
  """Parts of a patch, (64, 64) bool each."""

  nodule: np.ndarray
  core: np.ndarray
  ring: np.ndarray
  lung: np.ndarray


class Levels(NamedTuple):
  """HU in the regions of a patch; NaN where one is empty."""

  core_mean: float
  core_sd: float
  rim: float  # how much lower the whole nodule's mean is than the core's
  ring_mean: float
  ring_sd: float
  ring_above_lung: float  # the ring's mean over the lung's median


class Texture(NamedTuple):
  """Noise in lung without vessels, after a plane was subtracted per window."""

  sd: float  # HU
  lag_1: float  # autocorrelation at 1 px, along rows and columns
  lag_2: float


def regions(image, votes, num_readers):
  """Divides a patch.

  Args:
    image: (64, 64) HU.
    votes: (64, 64), how many readers marked the pixel.
    num_readers: how many could have.

  Returns:
    Regions.
  """
  nodule = patches.consensus_mask(votes, num_readers, (1, 2))
  near, far = (ndimage.binary_dilation(nodule, iterations=n) for n in RING_PX)
  marked = ndimage.binary_dilation(votes > 0, iterations=FAR_PX)
  dense = ndimage.binary_dilation(image >= DENSE_HU, iterations=CLEAR_PX)
  core = ndimage.binary_erosion(nodule, iterations=CORE_PX)
  return Regions(nodule, core, far & ~near, ~(marked | dense))


def levels(image, parts):
  """The levels of a patch.

  Args:
    image: (64, 64) HU.
    parts: its `Regions`.

  Returns:
    Levels.
  """

  def of(statistic, part):
    return float(statistic(image[part])) if part.any() else np.nan

  core, ring = of(np.mean, parts.core), of(np.mean, parts.ring)
  return Levels(
    core_mean=core,
    core_sd=of(np.std, parts.core),
    rim=core - of(np.mean, parts.nodule),
    ring_mean=ring,
    ring_sd=of(np.std, parts.ring),
    ring_above_lung=ring - of(np.median, parts.lung),
  )


def kind(ratings):
  """'solid', 'ground glass', or None for what is in between or calcified.

  Args:
    ratings: dict of each reader's ratings.
  """
  if np.mean(ratings['calcification']) <= 5.5:
    return None
  texture = np.mean(ratings['texture'])
  return 'solid' if texture >= 4 else 'ground glass' if texture <= 2 else None


def texture(images):
  """The strength and correlation of noise in the quietest windows of lung.

  Args:
    images: (num, 64, 64) HU.

  Returns:
    Texture.

  Raises:
    ValueError: every window has dense tissue in it.
  """
  n = TEXTURE_PX
  windows = np.lib.stride_tricks.sliding_window_view(
    np.asarray(images, float), (n, n), axis=(1, 2)
  )[:, :: n // 2, :: n // 2].reshape(-1, n, n)
  windows = windows[windows.max(axis=(1, 2)) < DENSE_HU]
  if not len(windows):
    raise ValueError('no window of lung in these images')
  rows, cols = np.mgrid[:n, :n].reshape(2, -1)
  plane = np.stack([np.ones(n * n), rows, cols], axis=1)
  flat = windows.reshape(-1, n * n)
  rest = flat - flat @ np.linalg.pinv(plane).T @ plane.T
  sd = rest.std(axis=1)
  quiet = rest[sd <= np.quantile(sd, QUIET_SHARE)].reshape(-1, n, n)

  def correlation(lag):
    along = (quiet[:, :, lag:] * quiet[:, :, :-lag]).mean()
    down = (quiet[:, lag:] * quiet[:, :-lag]).mean()
    return float((along + down) / 2 / (quiet**2).mean())

  return Texture(float(quiet.std()), correlation(1), correlation(2))
