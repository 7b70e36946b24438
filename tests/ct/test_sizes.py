"""Tests sizes against hand counts and scikit-image."""

import numpy as np
import pytest
from skimage import measure as sk_measure

from mtnet_jax.ct import sizes


@pytest.mark.parametrize(
  ('pixels', 'mm'),
  [
    ([], 0),
    ([(5, 5)], 0.5),  # one pixel is one pixel wide
    ([(5, 5), (5, 6), (5, 7)], 1.5),
    # It is sqrt(16 + 9) = 5 pixels from edge midpoint (-0.5, 0) to (3.5, 3).
    ([(0, 0), (1, 1), (2, 2), (3, 3)], 2.5),
  ],
)
def test_diameters_by_hand(pixels, mm):
  pixels = np.array(pixels, int).reshape(-1, 2)
  assert sizes.diameter_mm(pixels, 0.5) == pytest.approx(mm)


def test_diameters_agree_with_scikit_image():
  rng = np.random.default_rng(0)
  for _ in range(20):
    mask = rng.random((9, 12)) < 0.7
    mask = sk_measure.label(mask) == 1
    (region,) = sk_measure.regionprops(mask.astype(int))
    ours = sizes.diameter_mm(np.argwhere(mask), 0.8)
    assert ours == pytest.approx(0.8 * region.feret_diameter_max, rel=1e-6)


def test_volume_adds_slices_of_their_own_thickness():
  # 4 px * 2 mm + 6 px * 3 mm = 26 px mm, and a pixel has 0.25 mm2.
  assert sizes.volume_mm3([4, 6], [2, 3], 0.5) == 6.5
