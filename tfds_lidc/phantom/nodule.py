"""Simulates nodules that show what their readers rated.

Every rating except malignancy is visible: subtlety as contrast, texture as the
share of ground glass, margin as the width of the edge, lobulation as scallops,
spiculation as rays, calcification as bright spots. Sphericity is part of the
contour already. `patch` explains the purpose.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import math

import numpy as np

from tfds_lidc.phantom import lung as phantom_lung
from tfds_lidc.phantom import scanner
from tfds_lidc.phantom import vessels

ROWS, COLS = phantom_lung.ROWS, phantom_lung.COLS

# All levels are in HU and match real nodules (`tools.compare_phantom`).
SOLID_HU, LEVEL_SD = 60.0, 45.0  # mean, and variation between nodules
SOLID_SD, SOLID_PX = 40.0, 1.2  # noise within a nodule and its correlation
# Ground glass becomes denser from the edge to GLASS_RISE_PX inside ...
GLASS_EDGE_HU, GLASS_CENTRE_HU, GLASS_RISE_PX = -610.0, -460.0, 6.0
# ... and is patchy, as it contains vessels and air.
GLASS_SD, GLASS_PX = 130.0, 1.8
# Share of the depth by which the solid core's edge varies, so that the core is
# no scaled copy of the nodule.
CORE_JITTER = 0.25
CALCIUM_HU = 1300.0  # above the nodule's level

SUBTLETY_CONTRAST = (0.7, 0.8, 0.88, 0.95, 1.0)  # at ratings 1 to 5
# Standard deviation of the edge at margin 1 to 5, mm; 0.15 is nearly a step.
MARGIN_SD_MM = (2.0, 1.4, 0.9, 0.45, 0.15)
# Share of the inscribed radius; a wider edge would leave no core.
MAX_EDGE_SHARE = 0.55
# Deviation of the edge from the readers' contour, and its correlation length.
CONTOUR_SD_PX, CONTOUR_PX = 0.45, 1.8
MAX_SCALLOP = 0.22, 1.8  # share of the equivalent radius, and limit in px

# Rays fill some of the slots around the nodule, more for higher ratings.
SPIKE_SLOTS, MAX_SPIKES = 18, 13
SPIKE_MM = (3.0, 9.0)  # largest length, just above rating 1 and at rating 5
SPIKE_RADIUS_PX = (0.5, 1.1)  # range at the root


def add_nodule(
  hu: np.ndarray,
  distance: np.ndarray,
  ratings: Mapping[str, float],
  spacing_mm: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Draws a nodule over the background.

  Args:
    hu: (64, 64), the background.
    distance: (64, 64) px, positive inside the contour.
    ratings: values of `patch.RATINGS_SHOWN`.
    spacing_mm: size of a pixel.
    rng: source of randomness.

  Returns:
    (64, 64) HU.
  """
  level_rng, texture_rng, edge_rng, spike_rng, calcium_rng = rng.spawn(5)
  inside = distance > 0
  if not inside.any():
    return hu
  centre = ROWS[inside].mean(), COLS[inside].mean()
  level = LEVEL_SD * level_rng.normal()
  target = level + _tissue(distance, ratings['texture'], texture_rng)
  # Subtlety is the contrast to the surrounding lung.
  lung = np.quantile(hu, 0.25)  # excludes vessels and wall
  contrast = np.interp(ratings['subtlety'], np.arange(1, 6), SUBTLETY_CONTRAST)
  target = lung + contrast * (target - lung)
  target = target + _calcium(
    distance, centre, ratings['calcification'], calcium_rng
  )
  cover = np.maximum(
    _body(distance, centre, ratings, spacing_mm, edge_rng),
    spikes(distance, centre, ratings['spiculation'], spacing_mm, spike_rng),
  )
  # The nodule never darkens, so that vessels and the wall remain visible.
  return hu + cover * np.maximum(target - hu, 0)


def _tissue(
  distance: np.ndarray, texture: float, rng: np.random.Generator
) -> np.ndarray:
  """Draws the HU of a solid core, which grows with texture, in ground glass."""
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


def _body(
  distance: np.ndarray,
  centre: tuple[float, float],
  ratings: Mapping[str, float],
  spacing_mm: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Draws the share of nodule in each pixel, (64, 64), without spikes."""
  # Lobulation: scallops on the contour, of mean zero.
  angle = np.arctan2(ROWS - centre[0], COLS - centre[1])
  wave = rng.integers(4, 8) / 2 * angle + rng.uniform(0, np.pi)
  scallop = abs(np.sin(wave)) - 2 / np.pi
  share, max_px = MAX_SCALLOP
  radius = math.sqrt((distance > 0).sum() / np.pi)
  lobes = (ratings['lobulation'] - 1) / 4
  bumpy = distance + lobes * min(share * radius, max_px) * scallop
  # The precision of readers is about a pixel.
  bumpy = bumpy + CONTOUR_SD_PX * scanner.noise(CONTOUR_PX, rng)
  # Margin: the width of the edge, with half the contrast on the contour.
  edge_sd = np.interp(ratings['margin'], np.arange(1, 6), MARGIN_SD_MM)
  edge_sd = min(edge_sd / spacing_mm, MAX_EDGE_SHARE * distance.max())
  # A cubic step has a finite width; its standard deviation is half of that
  # width over sqrt(5).
  step = np.clip(0.5 + bumpy / (2 * math.sqrt(5) * edge_sd), 0, 1)
  return step * step * (3 - 2 * step)


def spikes(
  distance: np.ndarray,
  centre: tuple[float, float],
  rating: float,
  spacing_mm: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Draws thin rays that start at the contour.

  Args:
    distance: (64, 64) px, positive inside the nodule.
    centre: row and column from which the rays radiate.
    rating: spiculation, 1 to 5. The number of rays grows with the root of
      rating - 1, from 0 at 1 to `MAX_SPIKES` at 5. Their length grows
      linearly.
    spacing_mm: size of a pixel.
    rng: source of randomness.

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
  # Each ray starts at its last point inside the nodule.
  row, col = _ray(centre, angle, reach)
  crossed = distance[vessels.to_index(row), vessels.to_index(col)]
  start = np.max(reach * (crossed > 0), axis=1, keepdims=True)
  length *= np.interp(strength, (0, 1), SPIKE_MM) / spacing_mm
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


def _ray(
  centre: tuple[float, float], angle: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns rows and columns at distances `reach` in the direction `angle`."""
  return centre[0] + np.sin(angle) * reach, centre[1] + np.cos(angle) * reach


def _calcium(
  distance: np.ndarray,
  centre: tuple[float, float],
  rating: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Draws the HU that calcification adds, (64, 64); 0 at rating 6 (absent).

  The LIDC scale is categorical: 1 popcorn, 2 laminated, 3 solid, 4 non-central,
  5 central. The mean over readers selects the nearest pattern, and readers who
  saw no calcification weaken it.
  """
  depth = distance / distance.max()  # 1 at the deepest point, 0 on the contour
  deep = np.argwhere(depth > 0.3)
  spots = deep[rng.integers(len(deep), size=4)]
  radius = max(0.35 * math.sqrt((distance > 0).sum() / np.pi), 1)

  def spot(at: Sequence[float] | np.ndarray) -> np.ndarray:
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
