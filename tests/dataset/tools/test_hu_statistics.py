"""The statistics of SIMULATED attenuation are those of real CT.

`compare_phantom` printed the values of real CT for 618 nodules of 358 patients.
One test measures four nodules of one scan again.
"""

import dicom_files
import numpy as np
import pytest
from scipy import ndimage

from tfds_lidc.phantom import scanner
from tfds_lidc.tools import compare_phantom
from tfds_lidc.tools import hu_statistics

# Quantiles (5, 25, 50, 75, 95 %) of lung, in HU.
REAL_LUNG = (-963, -903, -861, -811, -714)
# Quantiles (5, 25, 50, 75, 95 %) over 226 solid nodules and 25 of ground glass,
# in HU.
REAL_LEVELS = {
  ('solid', 'core_mean'): (-180, -36, 12, 47, 101),
  ('solid', 'core_sd'): (21, 41, 59, 90, 160),
  ('solid', 'rim'): (27, 74, 115, 143, 210),
  ('solid', 'ring_mean'): (-880, -803, -744, -623, -439),
  ('solid', 'ring_sd'): (48, 89, 146, 284, 409),
  ('solid', 'ring_above_lung'): (17, 45, 105, 210, 379),
  ('ground glass', 'core_mean'): (-693, -634, -582, -465, -332),
  ('ground glass', 'core_sd'): (68, 80, 112, 141, 163),
  ('ground glass', 'rim'): (21, 40, 48, 68, 109),
  ('ground glass', 'ring_mean'): (-921, -874, -820, -773, -560),
  ('ground glass', 'ring_sd'): (50, 70, 105, 197, 384),
  ('ground glass', 'ring_above_lung'): (0, 26, 47, 80, 231),
}
# The four nodules of LIDC-IDRI-0003: one of ground glass, then three solid.
ONE_SCAN = {
  'core_mean': (-636, -20, -65, -22),
  'core_sd': (100, 92, 64, 43),
  'ring_mean': (-815, -733, -781, -741),
  'ring_sd': (90, 80, 141, 246),
}
ROWS, COLS = np.mgrid[:64, :64]


@pytest.fixture(scope='module')
def phantoms():
  return compare_phantom.phantoms(every=5)  # 285 of them


def test_regions_of_a_square():
  votes = np.zeros((64, 64), int)
  votes[28:37, 28:37] = 2  # 9 x 9 px, marked by two of four readers
  votes[30, 40] = 1
  image = np.full((64, 64), -900)
  image[0, 0] = 0
  parts = hu_statistics.regions(image, votes, 4)
  assert parts.nodule.sum() == 81 and parts.core.sum() == 25
  # Layer k around a square of side 9, by distance over four neighbours, has
  # 4 * 9 + 4 * (k - 1) pixels: layers 2, 3 and 4 have 40, 44 and 48.
  assert parts.ring.sum() == 40 + 44 + 48
  assert not parts.ring[27, 32] and parts.ring[26, 32] and parts.ring[24, 32]
  assert not parts.ring[23, 32]
  # Lung is more than six steps away from any mark and two from dense pixels.
  assert not parts.lung[30, 46] and parts.lung[30, 47]
  assert not parts.lung[0, 2] and parts.lung[0, 3]


def test_levels_of_two_values():
  votes = (np.hypot(ROWS - 32, COLS - 32) < 6).astype(int)
  image = np.where(votes, 40.0, -860.0)
  parts = hu_statistics.regions(image, votes, 1)
  image[parts.nodule & ~parts.core] = -460
  levels = hu_statistics.levels(image, parts)
  core, nodule = parts.core.sum(), parts.nodule.sum()
  assert levels == pytest.approx(
    (40, 0, 500 * (1 - core / nodule), -860, 0, 0), abs=1e-9
  )
  nothing = hu_statistics.regions(image, 0 * votes, 1)
  assert np.isnan(hu_statistics.levels(image, nothing).core_mean)


def test_texture_of_known_noise(monkeypatch):
  monkeypatch.setattr(hu_statistics, 'QUIET_SHARE', 1.0)
  rng = np.random.default_rng(0)
  noise = [20 * scanner.noise(0.85, rng) for _ in range(40)]
  got = hu_statistics.texture([-900 + 3 * ROWS - COLS + x for x in noise])
  # The covariance of the noise between the 144 pixels of a window is
  # exp(-lag^2 / 4 s^2) with s = 0.85; fitting a plane removes a part of it.
  rows, cols = np.mgrid[:12, :12].reshape(2, -1)
  lag = np.hypot(rows - rows[:, None], cols - cols[:, None])
  plane, _ = np.linalg.qr(np.stack([np.ones(144), rows, cols], axis=1))
  projection = np.eye(144) - plane @ plane.T
  covariance = projection @ np.exp(-(lag**2) / (4 * 0.85**2)) @ projection
  variance = np.trace(covariance) / 144
  want = [covariance[lag == k].mean() / variance for k in (1, 2)]
  # 40 images hold about 20000 independent values, so one standard deviation is
  # 0.007.
  assert got.sd == pytest.approx(20 * np.sqrt(variance), rel=0.02)
  assert got[1:] == pytest.approx(want, abs=0.014)
  # The slope and the level of the images do not matter.
  assert hu_statistics.texture(noise - np.float64(900)) == pytest.approx(got)
  monkeypatch.setattr(hu_statistics, 'QUIET_SHARE', 0.1)
  assert hu_statistics.texture(noise - np.float64(900)).sd < 0.9 * got.sd
  with pytest.raises(ValueError, match='no window'):
    hu_statistics.texture(0 * ROWS[None])


def test_quantiles_of_lung_are_those_of_real_lung(phantoms):
  got = np.quantile(phantoms.hu['lung'], hu_statistics.QUANTILES)
  np.testing.assert_allclose(got, REAL_LUNG, atol=20)


@pytest.mark.parametrize('kind, field', REAL_LEVELS)
def test_quantiles_of_nodules_overlap_those_of_real_ones(phantoms, kind, field):
  column = hu_statistics.Levels._fields.index(field)
  got = phantoms.levels[phantoms.kinds == kind, column]
  got = got[np.isfinite(got)]
  low, quarter, median, three_quarters, high = REAL_LEVELS[kind, field]
  q1, q2, q3 = np.quantile(got, (0.25, 0.5, 0.75))
  # Each median is between the quartiles of the other kind of data.
  if kind == 'solid':
    assert quarter < q2 < three_quarters
    assert q1 < median < q3
    assert low < q1 and q3 < high
  else:  # only 11 phantoms and 25 real nodules
    assert low < q2 < high


def test_layers_of_ground_glass_have_the_means_of_real_ones():
  # Mean of each layer, from the outline inwards, over 31 real nodules; 16 of
  # them have a fifth layer.
  real = (-663, -582, -554, -531, -487)
  glass = compare_phantom.phantoms(kind='ground glass')
  layers = [[] for _ in real]
  for image, mask in zip(glass.images, glass.masks, strict=True):
    depth = np.rint(ndimage.distance_transform_edt(mask))
    for values, layer in zip(layers, range(1, 6), strict=True):
      if (depth == layer).sum() > 3:
        values.append(image[depth == layer].mean())
  assert min(map(len, layers)) > 20
  # Real nodules of ground glass have a standard deviation of about 100 HU, so
  # the mean of thirty has one of 20 HU; the tolerance is three times that.
  np.testing.assert_allclose([np.mean(x) for x in layers], real, atol=60)


def test_ring_is_bright_where_a_wall_touches_the_nodule(phantoms):
  column = hu_statistics.Levels._fields.index
  rings = phantoms.levels[:, column('ring_mean')]
  spread = phantoms.levels[:, column('ring_sd')]
  touching = spread > 250
  # A wall touches 29 % of the real nodules; their rings have a mean of -564 HU.
  assert touching.sum() / np.isfinite(rings).sum() == pytest.approx(
    0.29, abs=0.1
  )
  assert np.nanmean(rings[touching]) == pytest.approx(-564, abs=60)
  assert np.nanmax(rings) > -500


def test_noise_is_correlated_as_in_a_real_scan(phantoms):
  got = hu_statistics.texture(phantoms.images)
  assert got.sd == pytest.approx(26, rel=0.2)
  assert got.lag_1 == pytest.approx(0.60, abs=0.05)
  assert got.lag_2 == pytest.approx(0.15, abs=0.05)


def test_vessels_skew_the_lung_as_in_a_real_scan(phantoms):
  spans = []
  for image, mask in zip(phantoms.images, phantoms.masks, strict=True):
    lung = image[hu_statistics.regions(image, mask, 1).lung]
    if lung.size >= 800:
      spans.append(np.quantile(lung, 0.95) - np.median(lung))
  # Real patches have 82, 117 and 166 HU.
  np.testing.assert_allclose(
    np.quantile(spans, (0.1, 0.5, 0.9)), (82, 117, 166), rtol=0.2
  )


@dicom_files.needs_real_series
def test_levels_of_real_nodules_are_the_stored_ones():
  nodules, real, simulated = compare_phantom.real_and_phantom(
    dicom_files.REAL_DIR, config='all'
  )
  order = np.argsort([n.nodule_id for n in nodules])
  for name, want in ONE_SCAN.items():
    column = hu_statistics.Levels._fields.index(name)
    np.testing.assert_array_equal(np.rint(real.levels[order, column]), want)
  assert list(real.kinds[order]) == ['ground glass', *['solid'] * 3]
  assert list(simulated.kinds) == list(real.kinds)
  assert (simulated.masks == real.masks).all()
  assert (simulated.images != real.images).mean() > 0.9
  noise = hu_statistics.texture(real.images)
  assert noise == pytest.approx((22.5, 0.56, 0.12), abs=0.1)
