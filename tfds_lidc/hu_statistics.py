"""What the attenuation of a patch looks like in numbers, real or SIMULATED.

The regions are those in which the levels that `phantom` aims at were measured
in real scans: a pixel belongs to the nodule here if half of the readers marked
it, and distances are counted in steps to the four neighbours.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfds_lidc import patches

CORE_PX = 2  # the core: what is left when so many layers are peeled off
RING_PX = (1, 4)  # the ring: from beyond the first to the fourth layer around
FAR_PX = 6  # the lung: farther than this from any reader's mark, ...
DENSE_HU = -500.0  # ... and than CLEAR_PX from what is denser than this
CLEAR_PX = 2
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

TEXTURE_PX = 12  # side of the windows in which texture is measured
QUIET_SHARE = 0.3  # of the windows: those without vessels


class Regions(NamedTuple):
  """Parts of a patch, (64, 64) bool each."""

  nodule: np.ndarray
  core: np.ndarray
  ring: np.ndarray
  lung: np.ndarray


class Levels(NamedTuple):
  """HU; NaN where the region is empty."""

  nodule_mean: float
  core_mean: float
  core_sd: float
  ring_mean: float
  ring_sd: float


class Texture(NamedTuple):
  """Of lung without vessels, after a plane was taken off each window."""

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
  excluded = ndimage.binary_dilation(votes > 0, iterations=FAR_PX)
  excluded |= ndimage.binary_dilation(image >= DENSE_HU, iterations=CLEAR_PX)
  core = ndimage.binary_erosion(nodule, iterations=CORE_PX)
  return Regions(nodule, core, far & ~near, ~excluded)


def levels(image, parts):
  """Means and standard deviations of a patch's `Regions`."""

  def mean_sd(part):
    hu = image[part]
    return (hu.mean(), hu.std()) if hu.size else (np.nan, np.nan)

  return Levels(
    mean_sd(parts.nodule)[0], *mean_sd(parts.core), *mean_sd(parts.ring)
  )


def texture(images):
  """The noise's strength and correlation in the quietest windows of lung.

  Args:
    images: (num, 64, 64) HU.

  Returns:
    Texture.

  Raises:
    ValueError: no window without dense tissue.
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
  rest = (flat - flat @ plane @ np.linalg.pinv(plane)).reshape(-1, n, n)
  sd = rest.std(axis=(1, 2))
  quiet = rest[sd <= np.quantile(sd, QUIET_SHARE)]

  def correlation(lag):
    along = (quiet[:, :, lag:] * quiet[:, :, :-lag]).mean()
    down = (quiet[:, lag:] * quiet[:, :-lag]).mean()
    return (along + down) / 2 / (quiet**2).mean()

  return Texture(quiet.std(), correlation(1), correlation(2))
