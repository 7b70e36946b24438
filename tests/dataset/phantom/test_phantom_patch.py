"""Simulated patches: their statistics and the effect of each rating."""

import time

import numpy as np
import pytest
from scipy import ndimage

from tfds_lidc.phantom import nodule
from tfds_lidc.phantom import patch as phantom_patch
from tfds_lidc.phantom import vessels

SPACING = 0.7  # mm
RATINGS = dict(
  subtlety=5.0,
  calcification=6.0,
  sphericity=4.0,
  margin=4.0,
  lobulation=1.0,
  spiculation=1.0,
  texture=5.0,
  malignancy=3.0,
)
ROWS, COLS = np.mgrid[:64, :64]
RADIUS = np.hypot(ROWS - 32, COLS - 32)  # distance from the centre in px


def disc(*radii):
  """Returns (num_readers, 64, 64) masks, one reader per radius in px."""
  return np.stack([RADIUS < radius for radius in radii])


def simulate(masks, seed=0, **ratings):
  return phantom_patch.simulate_patch(
    masks,
    {**RATINGS, **ratings},
    pixel_spacing_mm=SPACING,
    rng=np.random.default_rng(seed),
  ).astype(float)


def mean_patch(masks, num=40, **ratings):
  return np.mean([simulate(masks, seed, **ratings) for seed in range(num)], 0)


def test_patch_is_int16_in_the_range_of_ct_and_marked_as_simulated():
  patch = phantom_patch.simulate_patch(
    disc(5, 6), RATINGS, pixel_spacing_mm=SPACING, rng=np.random.default_rng(0)
  )
  assert patch.shape == (64, 64) and patch.dtype == np.int16
  bright = simulate(disc(9), calcification=3.0)
  assert patch.min() >= -1024 and bright.max() <= 3071
  assert 'SIMULATED' in phantom_patch.DESCRIPTION
  assert 'SIMULATED' in phantom_patch.simulate_patch.__doc__


def test_seed_determines_the_patch():
  np.testing.assert_array_equal(simulate(disc(5), 3), simulate(disc(5), 3))
  assert (simulate(disc(5), 3) != simulate(disc(5), 4)).mean() > 0.9


def test_wrong_shape_or_missing_rating_is_an_error():
  with pytest.raises(ValueError, match=r'\(64, 64\)'):
    simulate(np.ones((64, 64), bool))
  with pytest.raises(KeyError, match='texture'):
    phantom_patch.simulate_patch(
      disc(5),
      {k: v for k, v in RATINGS.items() if k != 'texture'},
      pixel_spacing_mm=SPACING,
      rng=np.random.default_rng(0),
    )


# At least k = ceil(2n/3) of n nested discs cover the k-th largest one.
@pytest.mark.parametrize(
  'radii, want',
  [((6,), 6), ((4, 8), 4), ((4, 7, 10), 7), ((4, 6, 8, 10), 6), ((7, 9, 0), 7)],
)
def test_consensus_distance_is_zero_where_two_thirds_agree(radii, want):
  distance = phantom_patch.consensus_distance(disc(*radii))
  # Zero lies between the last pixel inside and the first one outside.
  profile = distance[32, 32:]
  crossing = np.interp(0, -profile[:20], np.arange(20))
  assert crossing == pytest.approx(want - 0.5, abs=0.35)
  assert distance[32, 52] == pytest.approx(want - 0.5 - 20, abs=0.6)


def test_attenuation_is_halfway_at_the_consensus_outline():
  # The third largest of four radii is 10. It includes pixels up to 9, so the
  # edge is at 9.5.
  masks = disc(7, 10, 12, 13)
  profile = mean_patch(masks, margin=3.0)
  profile = np.array(
    [np.median(profile[np.rint(RADIUS) == r]) for r in range(18)]
  )
  core, lung = profile[:4].mean(), profile[-2:].mean()
  crossing = np.interp(-(core + lung) / 2, -profile, np.arange(18))
  assert crossing == pytest.approx(9.5, abs=0.6)


def test_attenuation_increases_with_texture():
  masks, core = disc(9), RADIUS < 6
  means = [
    np.mean(
      [simulate(masks, seed, texture=t)[core].mean() for seed in range(20)]
    )
    for t in range(1, 6)
  ]
  assert np.all(np.diff(means) >= -1) and means[4] - means[2] > 100
  # A part-solid nodule has a solid centre and a halo of ground glass.
  part = mean_patch(masks, texture=3.0)
  halo = (RADIUS > 6) & (RADIUS < 8)
  assert part[RADIUS < 2].mean() - part[halo].mean() > 200


def test_ground_glass_is_denser_inside():
  # The mean ratings of 31 real nodules of ground glass.
  ratings = dict(
    texture=1.45,
    subtlety=3.06,
    margin=2.18,
    lobulation=1.85,
    spiculation=1.44,
  )
  glass = [simulate(disc(9), seed, **ratings) for seed in range(40)]
  layers = [
    np.mean([g[(RADIUS <= 9 - k) & (RADIUS > 8 - k)] for g in glass])
    for k in range(9)
  ]
  assert np.all(np.diff(layers) > 0)
  within = np.mean([g[RADIUS < 7].std() for g in glass])
  assert 68 < within < 163  # the range of 90 % of real ones
  # Each layer is patchy too; layers of real ones have standard deviations of
  # 100 to 114 HU.
  patchy = [
    np.mean([g[(RADIUS <= 9 - k) & (RADIUS > 8 - k)].std() for g in glass])
    for k in range(2, 7)
  ]
  assert 50 < np.mean(patchy) < 108


def test_solid_nodules_are_homogeneous_inside():
  # Four pixels or more inside the outline, 140 real nodules have a median
  # standard deviation of 36 HU, and 90 % of them 14 to 159 HU.
  inside = [
    simulate(disc(9), s, margin=5.0)[RADIUS < 5].std() for s in range(20)
  ]
  assert 24 < np.median(inside) < 64  # the range of 50 % of real ones
  assert max(inside) < 159


def test_margin_sets_the_width_of_the_edge():
  def width(margin):  # px between 10 % and 90 % of the contrast
    patch = mean_patch(disc(12), margin=margin)
    profile = np.array(
      [np.median(patch[np.rint(RADIUS) == r]) for r in range(26)]
    )
    low, high = np.quantile(profile, 0.1), profile[:3].mean()
    at = [
      np.interp(-(low + q * (high - low)), -profile, np.arange(26))
      for q in (0.1, 0.9)
    ]
    return at[0] - at[1]

  widths = [width(m) for m in range(1, 6)]
  assert np.all(np.diff(widths) < 0), widths
  # A cubic step rises from 10 to 90 % within 0.608 of its full width, which is
  # 2 sqrt(5) standard deviations of 2.0 mm / 0.7 mm: 7.8 px.
  assert widths[0] == pytest.approx(7.8, abs=1.5)
  # Only the point spread of 0.5 to 0.85 px remains: 2.56 times 0.68 px, plus
  # one pixel of sampling.
  assert widths[4] == pytest.approx(2.2, abs=0.9)


@pytest.mark.parametrize('rating', [1.0, 2.0, 3.0, 4.0, 5.0])
def test_calcification_is_bright(rating):
  masks = disc(8)
  gain = [
    simulate(masks, seed, calcification=rating)[RADIUS < 8].max()
    - simulate(masks, seed)[RADIUS < 8].max()
    for seed in range(10)
  ]
  assert np.mean(gain) > 300
  weak = [
    simulate(masks, seed, calcification=5.7)[RADIUS < 8].max()
    - simulate(masks, seed)[RADIUS < 8].max()
    for seed in range(10)
  ]
  assert 0 < np.mean(weak) < np.mean(gain)  # at 5.7 most readers saw none


def test_spiculation_adds_rays_outside_the_outline():
  outside = (RADIUS > 8) & (RADIUS < 20)

  def energy(rating):
    return np.mean(
      [
        simulate(disc(7), seed, margin=5.0, spiculation=rating)[outside].mean()
        for seed in range(20)
      ]
    )

  energies = [energy(r) for r in (1.0, 2.0, 3.0, 4.0, 5.0)]
  assert np.all(np.diff(energies) > 2), energies
  # Rays, unlike a halo, cover only a part of a ring around the nodule.
  rays = simulate(disc(7), spiculation=5.0) - simulate(disc(7))
  ring = rays[(RADIUS > 9.5) & (RADIUS < 11.5)]
  between, on = np.quantile(ring, (0.2, 0.9))
  assert between < 80 and on > 250


def test_number_of_spikes_grows_with_the_square_root_of_the_rating():
  # The circle is so wide that rays of neighbouring slots are separate: it has
  # 18 slots of 6.6 px, rays are at least 0.4 slots apart and up to 2.2 px wide.
  distance = 19.5 - RADIUS
  turn = np.linspace(0, 2 * np.pi, 1440, endpoint=False)
  circle = 32 + 21.0 * np.array([np.sin(turn), np.cos(turn)])

  def count(rating, seed):
    rng = np.random.default_rng(seed)
    cover = nodule.spikes(distance, (32, 32), rating, SPACING, rng)
    on = ndimage.map_coordinates(cover, circle, order=1) > 0.05
    return (on & ~np.roll(on, 1)).sum()

  # 13 * sqrt((rating - 1) / 4), rounded.
  for rating, want in ((1, 0), (1.25, 3), (2, 6), (3, 9), (4, 11), (5, 13)):
    counts = [count(rating, seed) for seed in range(20)]
    assert np.mean(counts) == pytest.approx(want, abs=0.7), rating
    assert max(counts) <= want


def test_lobulation_scallops_the_edge_and_keeps_the_size():
  edge = (RADIUS > 7.5) & (RADIUS < 10.5)
  plain = [simulate(disc(9.5), seed, margin=5.0) for seed in range(10)]
  bumpy = [
    simulate(disc(9.5), seed, margin=5.0, lobulation=5.0) for seed in range(10)
  ]
  difference = np.mean(
    [b[edge].mean() - p[edge].mean() for b, p in zip(bumpy, plain, strict=True)]
  )
  change = np.mean(
    [(b - p)[edge].std() for b, p in zip(bumpy, plain, strict=True)]
  )
  assert change > 150 and abs(difference) < change / 3


def test_subtlety_scales_the_contrast():
  core, far = RADIUS < 5, (RADIUS > 14) & (RADIUS < 30)

  def contrast(rating):
    return np.mean(
      [
        p[core].mean() - np.quantile(p[far], 0.25)
        for p in (
          simulate(disc(8), seed, subtlety=rating) for seed in range(20)
        )
      ]
    )

  contrasts = np.array([contrast(r) for r in (1.0, 2.0, 3.0, 4.0, 5.0)])
  want = nodule.SUBTLETY_CONTRAST
  np.testing.assert_allclose(contrasts / contrasts[4], want, atol=0.05)


def test_background_does_not_depend_on_ratings():
  # Edges, scallops, spikes (8 mm) and the point spread (3 px) end within 20 px
  # of the outline.
  far = RADIUS > 7 + 20
  other = dict(
    subtlety=1.0,
    calcification=3.0,
    margin=1.0,
    lobulation=5.0,
    spiculation=5.0,
    texture=1.0,
    sphericity=1.0,
    malignancy=5.0,
  )
  for seed in range(10):
    one, two = simulate(disc(7), seed), simulate(disc(7), seed, **other)
    np.testing.assert_array_equal(one[far], two[far])
    assert np.any(one[~far] != two[~far])


def test_some_vessels_run_to_the_nodule():
  distance = 7 - RADIUS
  cover = np.mean(
    [
      vessels.vessels(distance, SPACING, np.random.default_rng(seed))
      for seed in range(100)
    ],
    axis=0,
  )
  near = cover[(distance < -0.5) & (distance > -4)].mean()
  far = cover[(distance < -9) & (RADIUS < 30)].mean()
  # Vessels across the nodule are removed, so there are fewer near it than
  # elsewhere. The ratio would be 0.15 if no vessel met the nodule.
  assert 0.4 < near / far < 1


def test_malignancy_is_not_used():
  ratings = {k: v for k, v in RATINGS.items() if k != 'malignancy'}
  for seed in range(5):
    want = simulate(disc(6, 7), seed, malignancy=1.0)
    np.testing.assert_array_equal(
      want, simulate(disc(6, 7), seed, malignancy=5.0)
    )
    np.testing.assert_array_equal(
      want,
      phantom_patch.simulate_patch(
        disc(6, 7),
        ratings,
        pixel_spacing_mm=SPACING,
        rng=np.random.default_rng(seed),
      ),
    )


def test_extreme_outlines_give_a_finite_patch():
  for masks in (disc(0), disc(1.0), disc(60), disc(0, 5), disc(30, 31, 32, 33)):
    for calcification in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
      patch = simulate(masks, calcification=calcification)
      assert np.isfinite(patch).all() and patch.std() > 5


def test_simulation_is_fast():
  masks = disc(6, 7, 7, 8)
  simulate(masks)
  rounds = []  # the minimum of five, as the machine may be busy
  for _ in range(5):
    start = time.process_time()
    for seed in range(10):
      simulate(masks, seed)
    rounds.append((time.process_time() - start) / 10)
  assert min(rounds) < 0.02  # about 4 ms on one core
