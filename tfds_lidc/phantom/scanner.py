"""SIMULATED scanner: how sharp its images are, and how noisy.

A sharp reconstruction kernel shows edges as they are, and noise with them: it
is stronger, and from pixel to pixel less alike. Why and for what: see `patch`.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

PATCH_SIZE = 64  # px, the dataset's patch

# Of the softest kernel and of the sharpest: standard deviation of the point
# spread and of the noise's correlation, px, and the noise's strength, HU.
PSF_PX = (0.85, 0.5)
NOISE_PX = (0.9, 0.4)
NOISE_SD = (14.0, 58.0)
# Doses differ: a logarithm's standard deviation.
DOSE_SD = 0.25
# X-rays that cross the shoulders sideways are few: noise is longer in rows.
NOISE_LONGER_IN_ROWS = 1.25


class Scanner(NamedTuple):
  """One scan's image quality.

  Attributes:
    psf_px: standard deviation of the point spread.
    noise_px: correlation lengths of the noise, down and along, as in `noise`.
    noise_sd: HU.
  """

  psf_px: float
  noise_px: tuple[float, float]
  noise_sd: float

  def image(self, hu, rng):
    """What it shows of (64, 64) HU."""
    grain = self.noise_sd * noise(self.noise_px, rng)
    return ndimage.gaussian_filter(hu, self.psf_px) + grain


def draw(rng):
  """A `Scanner` at random."""
  sharp = rng.uniform()

  def between(softest, sharpest):
    return softest + sharp * (sharpest - softest)

  down = between(*NOISE_PX)
  dose = DOSE_SD * rng.normal()
  return Scanner(
    psf_px=between(*PSF_PX),
    noise_px=(down, NOISE_LONGER_IN_ROWS * down),
    noise_sd=math.exp(between(*np.log(NOISE_SD)) + dose),
  )


def noise(correlation_px, rng):
  """(64, 64) of unit variance, correlated as after a Gaussian.

  Args:
    correlation_px: standard deviation of the Gaussian, a number or one for
      each axis. The autocorrelation is exp(-lag^2 / 4 s^2).
    rng: np.random.Generator.
  """
  pixels = rng.normal(size=(PATCH_SIZE, PATCH_SIZE))
  lengths = np.broadcast_to(correlation_px, 2)
  for axis, length in enumerate(lengths):
    reach = math.ceil(4 * length)
    weights = np.exp(-((np.arange(-reach, reach + 1) / length) ** 2) / 2)
    weights /= math.sqrt((weights**2).sum())
    pixels = ndimage.correlate1d(pixels, weights, axis, mode='wrap')
  return pixels
