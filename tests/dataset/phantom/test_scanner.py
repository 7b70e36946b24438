"""The SIMULATED scanner has the sharpness and the noise of its parameters."""

import numpy as np
import pytest

from tfds_lidc.phantom import scanner


@pytest.mark.parametrize('length', [0.6, 0.85, 1.8, (0.9, 1.8)])
def test_noise_has_unit_variance_and_gaussian_correlation(length):
  rng = np.random.default_rng(0)
  noise = np.stack([scanner.noise(length, rng) for _ in range(100)])
  assert noise.var() == pytest.approx(1, abs=0.03)
  down, along = np.broadcast_to(length, 2)
  for lag in (1, 2) if down > 0.8 else ():  # shorter ones are below a pixel
    for size, one, other in (
      (along, noise[:, :, lag:], noise[:, :, :-lag]),
      (down, noise[:, lag:], noise[:, :-lag]),
    ):
      want = np.exp(-(lag**2) / (4 * size**2))
      assert np.mean(one * other) == pytest.approx(want, abs=0.03)


def test_sharp_scanner_is_noisy():
  rng = np.random.default_rng(0)
  drawn = [scanner.draw(rng) for _ in range(200)]
  psf = np.array([one.psf_px for one in drawn])
  noise = np.log([one.noise_sd for one in drawn])
  # The logarithm of the noise is linear in the sharpness, from 14 to 58 HU,
  # with a variance of log(58 / 14)^2 / 12 = 0.168. The dose adds a variance of
  # 0.25^2 = 0.0625. The correlation is -sqrt(0.168 / (0.168 + 0.0625)).
  assert np.corrcoef(psf, noise)[0, 1] == pytest.approx(-0.854, abs=0.04)
  assert all(one.noise_px[1] > one.noise_px[0] for one in drawn)
  one = scanner.Scanner(0.75, (0.8, 0.8), 20.0)
  flat = one.image(np.full((64, 64), -800.0), rng)
  assert flat.mean() == pytest.approx(-800, abs=3)
  assert flat.std() == pytest.approx(20, rel=0.15)


def test_width_of_an_edge_is_that_of_the_point_spread():
  rng = np.random.default_rng(0)
  step = np.where(np.arange(64) < 32, -800.0, 0.0) * np.ones((64, 1))
  shown = scanner.Scanner(1.5, (0.8, 0.8), 0.0).image(step, rng)[32]
  # An edge blurred by a Gaussian rises from 10 to 90 % within 2.56 standard
  # deviations.
  at = [np.interp(q * 800 - 800, shown, np.arange(64)) for q in (0.1, 0.9)]
  assert at[1] - at[0] == pytest.approx(2.56 * 1.5, abs=0.15)
