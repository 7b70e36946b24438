"""Simulates a scanner: the sharpness and the noise of its images.

A sharp reconstruction kernel preserves edges, but its noise is stronger and
less correlated between pixels. `patch` explains the purpose.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

PATCH_SIZE = 64  # px, the dataset's patch

# Each for the softest and the sharpest kernel: standard deviation of the point
# spread (px), of the noise's correlation (px), and of the noise itself (HU).
PSF_PX = (0.85, 0.5)
NOISE_PX = (0.9, 0.4)
NOISE_SD = (14.0, 58.0)
# Doses vary: standard deviation of the logarithm of the noise.
DOSE_SD = 0.25
# Few X-rays cross the shoulders sideways, so noise is longer along rows.
NOISE_LONGER_IN_ROWS = 1.25


class Scanner(NamedTuple):
  """One scan's image quality.

  Attributes:
    psf_px: standard deviation of the point spread.
    noise_px: `correlation_px` of `noise`, along columns and along rows.
    noise_sd: standard deviation of the noise, HU.
  """

  psf_px: float
  noise_px: tuple[float, float]
  noise_sd: float

  def image(self, hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurs (64, 64) HU and adds noise."""
    grain = self.noise_sd * noise(self.noise_px, rng)
    return ndimage.gaussian_filter(hu, self.psf_px) + grain


def draw(rng: np.random.Generator) -> Scanner:
  """Draws a scanner at random."""
  sharp = rng.uniform()

  def between(softest: float, sharpest: float) -> float:
    return softest + sharp * (sharpest - softest)

  down = between(*NOISE_PX)
  dose = DOSE_SD * rng.normal()
  return Scanner(
    psf_px=between(*PSF_PX),
    noise_px=(down, NOISE_LONGER_IN_ROWS * down),
    noise_sd=math.exp(between(*np.log(NOISE_SD)) + dose),
  )


def noise(
  correlation_px: float | tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
  """Draws Gaussian noise of unit variance, filtered by a Gaussian.

  Args:
    correlation_px: standard deviation s of the filter, one number or one per
      axis. The autocorrelation is exp(-lag^2 / 4 s^2).
    rng: source of randomness.

  Returns:
    (64, 64).
  """
  pixels = rng.normal(size=(PATCH_SIZE, PATCH_SIZE))
  lengths = np.broadcast_to(correlation_px, 2)
  for axis, length in enumerate(lengths):
    reach = math.ceil(4 * length)
    weights = np.exp(-((np.arange(-reach, reach + 1) / length) ** 2) / 2)
    weights /= math.sqrt((weights**2).sum())
    pixels = ndimage.correlate1d(pixels, weights, axis, mode='wrap')
  return pixels
