"""Computes statistics of the attenuation of patches, real or SIMULATED.

The levels of `phantom` were measured in real scans in the same regions: a pixel
belongs to the nodule if half of the readers marked it, and layers consist of
steps to the four neighbours.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfds_lidc.nodules import patches

CORE_PX = 2  # the core is the nodule without this many layers
RING_PX = (1, 4)  # the ring is the second to fourth layer around the nodule
FAR_PX = 6  # the lung is farther than this from any reader's mark, ...
DENSE_HU, CLEAR_PX = -500.0, 2  # ... and than this from any denser pixel
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

TEXTURE_PX = 12  # side of the windows in which texture is measured
QUIET_SHARE = 0.3  # share of the windows, which excludes larger vessels


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
  rim: float  # mean of the core minus mean of the whole nodule
  ring_mean: float
  ring_sd: float
  ring_above_lung: float  # mean of the ring minus median of the lung


class Texture(NamedTuple):
  """Noise in lung without vessels, minus a fitted plane in each window."""

  sd: float  # HU
  lag_1: float  # autocorrelation at 1 px, along rows and columns
  lag_2: float


class Sample(NamedTuple):
  """Patches that are described together.

  Attributes:
    images: (n, 64, 64) HU.
    masks: (n, 64, 64) bool, where half of the readers marked the pixel.
    kinds: (n,), results of `kind`; '' for None.
    levels: (n, 6), the fields of `Levels`; NaN if the core is too small.
    hu: region -> (pixels,) of all patches: lung, ring, and a core per kind.
    votes: (n, 64, 64), number of readers who marked the pixel.
  """

  images: np.ndarray
  masks: np.ndarray
  kinds: np.ndarray
  levels: np.ndarray
  hu: dict[str, np.ndarray]
  votes: np.ndarray


def regions(image: np.ndarray, votes: np.ndarray, num_readers: int) -> Regions:
  """Finds the regions of a patch.

  Args:
    image: (64, 64) HU.
    votes: (64, 64), number of readers who marked the pixel.
    num_readers: number of readers who marked the nodule.

  Returns:
    The regions.
  """
  nodule = patches.consensus_mask(votes, num_readers, (1, 2))
  near, far = (ndimage.binary_dilation(nodule, iterations=n) for n in RING_PX)
  marked = ndimage.binary_dilation(votes > 0, iterations=FAR_PX)
  dense = ndimage.binary_dilation(image >= DENSE_HU, iterations=CLEAR_PX)
  core = ndimage.binary_erosion(nodule, iterations=CORE_PX)
  return Regions(nodule, core, far & ~near, ~(marked | dense))


def levels(image: np.ndarray, parts: Regions) -> Levels:
  """Computes the levels of a patch.

  Args:
    image: (64, 64) HU.
    parts: the regions of the patch.

  Returns:
    The levels.
  """

  def of(statistic: Callable[[np.ndarray], Any], part: np.ndarray) -> float:
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


def kind(ratings: Mapping[str, Sequence[int]]) -> str | None:
  """Classifies a nodule by its texture.

  Args:
    ratings: each reader's ratings by name.

  Returns:
    'solid', 'ground glass', or None if it is in between or calcified.
  """
  if np.mean(ratings['calcification']) <= 5.5:
    return None
  texture = np.mean(ratings['texture'])
  return 'solid' if texture >= 4 else 'ground glass' if texture <= 2 else None


def texture(images: np.ndarray | Sequence[np.ndarray]) -> Texture:
  """Measures strength and correlation of noise in quiet windows of lung.

  Args:
    images: (num, 64, 64) HU.

  Returns:
    The texture.

  Raises:
    ValueError: every window contains dense tissue.
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

  def correlation(lag: int) -> float:
    along = (quiet[:, :, lag:] * quiet[:, :, :-lag]).mean()
    down = (quiet[:, lag:] * quiet[:, :-lag]).mean()
    return float((along + down) / 2 / (quiet**2).mean())

  return Texture(float(quiet.std()), correlation(1), correlation(2))
