"""The SIMULATED scanner is as sharp and as noisy as it says."""

import numpy as np
import pytest

from tfds_lidc.phantom import scanner


@pytest.mark.parametrize('length', [0.6, 0.85, 1.8, (0.9, 1.8)])
def test_noise_has_unit_variance_and_the_correlation_of_a_gaussian(length):
  rng = np.random.default_rng(0)
  noise = np.stack([scanner.noise(length, rng) for _ in range(100)])
  assert noise.var() == pytest.approx(1, abs=0.03)
  down, along = np.broadcast_to(length, 2)
  for lag in (1, 2) if down > 0.8 else ():  # below, pixels are too coarse
    for size, one, other in (
      (along, noise[:, :, lag:], noise[:, :, :-lag]),
      (down, noise[:, lag:], noise[:, :-lag]),
    ):
      want = np.exp(-(lag**2) / (4 * size**2))
      assert np.mean(one * other) == pytest.approx(want, abs=0.03)


def test_a_sharp_scanner_is_a_noisy_one():
  rng = np.random.default_rng(0)
  drawn = [scanner.draw(rng) for _ in range(200)]
  psf = np.array([one.psf_px for one in drawn])
  assert psf.min() > 0.5 and psf.max() < 0.85
  noise = np.log([one.noise_sd for one in drawn])
  # A logarithm of 14 to 58 HU over the range of sharpness, and 0.25 of dose:
  # the correlation is the root of 0.168 / (0.168 + 0.0625), where 0.168 is a
  # twelfth of log(58 / 14)^2.
  assert np.corrcoef(psf, noise)[0, 1] == pytest.approx(-0.854, abs=0.04)
  assert all(one.noise_px[1] > one.noise_px[0] for one in drawn)
  # What it shows: the point spread of a step, and the noise.
  one = scanner.Scanner(0.75, (0.8, 0.8), 20.0)
  flat = one.image(np.full((64, 64), -800.0), rng)
  assert flat.mean() == pytest.approx(-800, abs=3)
  assert flat.std() == pytest.approx(20, rel=0.15)
