"""SIMULATED nodules that show what their readers rated.

Every rating but malignancy has its sign here: subtlety the contrast, texture
the share of ground glass, margin the width of the edge, lobulation scallops,
spiculation rays, calcification bright spots. Sphericity is in the contour
already. Why and for what: see `patch`.
"""

import math

import numpy as np

from tfds_lidc.phantom import lung as phantom_lung
from tfds_lidc.phantom import scanner
from tfds_lidc.phantom import vessels

ROWS, COLS = phantom_lung.ROWS, phantom_lung.COLS

# HU. The levels are those of real nodules (`tools.compare_phantom`).
SOLID_HU, LEVEL_SD = 60.0, 45.0  # from nodule to nodule
SOLID_SD, SOLID_PX = 40.0, 1.2  # within one
# Ground glass thickens inwards, so much from the edge to 6 px inside ...
GLASS_EDGE_HU, GLASS_CENTRE_HU, GLASS_RISE_PX = -610.0, -460.0, 6.0
# ... and is patchy, with vessels and air in it.
GLASS_SD, GLASS_PX = 130.0, 1.8
CORE_JITTER = 0.25  # of the depth: a solid part is no smaller copy of the whole
CALCIUM_HU = 1300.0  # above the nodule's level

SUBTLETY_CONTRAST = (0.7, 0.8, 0.88, 0.95, 1.0)  # at ratings 1 to 5
# Standard deviation of the edge at margin 1 to 5, mm; 0.15 is a step by now.
MARGIN_SD_MM = (2.0, 1.4, 0.9, 0.45, 0.15)
# A wider edge than this share of the inscribed radius would leave no core.
MAX_EDGE_SHARE = 0.55
# Where the edge lies beside the readers' outline, and along how much of it.
OUTLINE_SD_PX, OUTLINE_PX = 0.45, 1.8
MAX_SCALLOP = 0.22, 1.8  # of the equivalent radius, and at most so many px

# Rays stand in some of the slots around the nodule, the more the stronger.
SPIKE_SLOTS, MAX_SPIKES = 18, 13
SPIKE_MM = (3.0, 9.0)  # the longest, from rating 1+ to 5
SPIKE_RADIUS_PX = (0.5, 1.1)  # where they start


def add_nodule(hu, distance, ratings, spacing, rng):
  """Puts a nodule over the background.

  Args:
    hu: (64, 64).
    distance: (64, 64) px, positive inside the outline.
    ratings: dict of `patch.RATINGS_SHOWN`.
    spacing: mm per px.
    rng: np.random.Generator.

  Returns:
    (64, 64) HU.
  """
  level_rng, texture_rng, edge_rng, spike_rng, calcium_rng = rng.spawn(5)
  inside = distance > 0
  if not inside.any():
    return hu
  centre = ROWS[inside].mean(), COLS[inside].mean()
  target = LEVEL_SD * level_rng.normal()
  target = target + _tissue(distance, ratings['texture'], texture_rng)
  # Subtlety: the contrast with the lung around.
  lung = np.quantile(hu, 0.25)  # below vessels and wall
  contrast = np.interp(ratings['subtlety'], np.arange(1, 6), SUBTLETY_CONTRAST)
  target = lung + contrast * (target - lung)
  target = target + _calcium(
    distance, centre, ratings['calcification'], calcium_rng
  )
  cover = np.maximum(
    _body(distance, centre, ratings, spacing, edge_rng),
    spikes(distance, centre, ratings['spiculation'], spacing, spike_rng),
  )
  # Only ever brighter, so that a vessel or the wall shines through.
  return hu + cover * np.maximum(target - hu, 0)


def _tissue(distance, texture, rng):
  """HU of a solid core, of a share that grows with texture, in ground glass."""
  solid = np.interp(texture, (1.5, 4.8), (0, 1))
  solid_rng, glass_rng, shape_rng = rng.spawn(3)
  depth = np.clip(distance / GLASS_RISE_PX, 0, 1)
  glass = GLASS_EDGE_HU + (GLASS_CENTRE_HU - GLASS_EDGE_HU) * depth
  glass = glass + (SOLID_HU - glass) * solid**2
  sd = GLASS_SD + solid * (SOLID_SD - GLASS_SD)
  glass = glass + sd * scanner.noise(GLASS_PX, glass_rng)
  grain = SOLID_SD * solid_rng.uniform(0.3, 1.7)
  tissue = SOLID_HU + grain * scanner.noise(SOLID_PX, solid_rng)
  deepest = distance.max()
  shape = CORE_JITTER * (1 - solid) * scanner.noise(3.0, shape_rng)
  core = distance - (1 - solid + shape) * deepest + 0.5
  core = np.clip(core, 0, 1) * min(1, 2 * solid)
  return glass + core * (tissue - glass)


def _body(distance, centre, ratings, spacing, rng):
  """Share of nodule in each pixel, without spikes: (64, 64) in [0, 1]."""
  # Lobulation: scallops about the outline, as much out as in.
  angle = np.arctan2(ROWS - centre[0], COLS - centre[1])
  wave = rng.integers(4, 8) / 2 * angle + rng.uniform(0, np.pi)
  scallop = abs(np.sin(wave)) - 2 / np.pi
  share, max_px = MAX_SCALLOP
  radius = math.sqrt((distance > 0).sum() / np.pi)
  lobes = (ratings['lobulation'] - 1) / 4
  bumpy = distance + lobes * min(share * radius, max_px) * scallop
  # Readers outline to within a pixel.
  bumpy = bumpy + OUTLINE_SD_PX * scanner.noise(OUTLINE_PX, rng)
  # Margin: the width of the edge; half the contrast stays on the outline.
  edge_sd = np.interp(ratings['margin'], np.arange(1, 6), MARGIN_SD_MM)
  edge_sd = min(edge_sd / spacing, MAX_EDGE_SHARE * distance.max())
  # A cubic step of half width w has standard deviation w / sqrt(5), and ends.
  step = np.clip(0.5 + bumpy / (2 * math.sqrt(5) * edge_sd), 0, 1)
  return step * step * (3 - 2 * step)


def spikes(distance, centre, rating, spacing, rng):
  """Thin rays out of the contour.

  Args:
    distance: (64, 64) px, positive inside the nodule.
    centre: row and column from which they radiate.
    rating: of spiculation, 1 to 5. Their number grows with the root of
      rating - 1, from none at 1 to `MAX_SPIKES` at 5; so does their length.
    spacing: mm per px.
    rng: np.random.Generator.

  Returns:
    (64, 64) in [0, 1].
  """
  strength = (rating - 1) / 4
  slots = SPIKE_SLOTS
  chosen = rng.permutation(slots) < round(MAX_SPIKES * strength**0.5)
  angle = np.arange(slots) + rng.uniform(-0.3, 0.3, slots)
  angle = 2 * np.pi / slots * angle[:, None]
  length = rng.uniform(0.3, 1.0, (slots, 1))
  width = rng.uniform(*SPIKE_RADIUS_PX, (slots, 1))
  bend = rng.normal(0, 0.12, (slots, 1))
  reach = np.arange(0, phantom_lung.PATCH_SIZE // 2, 0.5)  # px from the centre
  # Each ray starts where it leaves the nodule for good.
  row, col = _ray(centre, angle, reach)
  crossed = distance[vessels.to_index(row), vessels.to_index(col)]
  start = np.max(reach * (crossed > 0), axis=1, keepdims=True)
  length *= np.interp(strength, (0, 1), SPIKE_MM) / spacing
  t = (reach - start) / length
  row, col = _ray(centre, angle + bend * np.clip(t, 0, 1) ** 2, reach)
  share = (0.35 + 0.5 * strength) * (1 - 0.6 * t)
  drawn = (t >= -0.2) & (t <= 1) & chosen[:, None]
  radius = width * (1 - 0.6 * np.clip(t, 0, 1))
  return np.clip(
    vessels.stamp(row[drawn], col[drawn], radius[drawn], share[drawn]),
    0,
    1,
  )


def _ray(centre, angle, reach):
  return centre[0] + np.sin(angle) * reach, centre[1] + np.cos(angle) * reach


def _calcium(distance, centre, rating, rng):
  """HU added by calcification, (64, 64); nothing at rating 6 (absent).

  The LIDC scale is categorical: 1 popcorn, 2 laminated, 3 solid, 4 non-central,
  5 central. A mean over readers picks the nearest pattern, and the readers who
  saw none weaken it.
  """
  depth = distance / distance.max()  # 1 in the deepest point, 0 on the contour
  deep = np.argwhere(depth > 0.3)
  spots = deep[rng.integers(len(deep), size=4)]
  radius = max(0.35 * math.sqrt((distance > 0).sum() / np.pi), 1)

  def spot(at):
    return np.exp(
      -((ROWS - at[0]) ** 2 + (COLS - at[1]) ** 2) / (2 * radius**2)
    )

  kind = int(np.clip(math.floor(rating + 0.5), 1, 5))
  if kind == 1:
    pattern = np.max([spot(c) for c in spots], 0)
  elif kind == 2:
    pattern = 0.5 + 0.5 * np.cos(2 * np.pi * np.clip(distance, 0, None) / 3)
  elif kind == 3:
    pattern = np.ones_like(distance)
  elif kind == 4:
    pattern = spot(deep[np.argmin(depth[tuple(deep.T)])])
  else:
    pattern = spot(centre)
  inside = np.clip(distance + 0.5, 0, 1)
  return min(max(6 - rating, 0), 1) * CALCIUM_HU * pattern * inside
