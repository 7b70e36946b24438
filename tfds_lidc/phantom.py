"""SIMULATED attenuation for nodules whose contours and ratings are real.

The readers' contours and ratings of LIDC-IDRI (Armato et al., Med. Phys. 38,
915, 2011) are public and small, its CT is 125 GB. Here the contours get an
invented CT: lung, vessels and chest wall whose statistics resemble real scans,
and a nodule that shows what the readers rated. It serves to exercise the whole
path without a download. Nothing measured on it says anything about patients.

    python -m tfds_lidc.phantom --write_dicom=DIR --patients=LIDC-IDRI-0001,...

writes whole SIMULATED series, see `phantom_dicom`.

Two rules keep it honest. The background knows the contours (a wall must not
cover the nodule) but no rating, and the nodule knows every rating except
malignancy, so that the label reaches the image only as far as the other
ratings and the outline tell it.
"""

import math

import numpy as np
from scipy import ndimage

from tfds_lidc import phantom_lung

DESCRIPTION = (
  'SIMULATED: real LIDC-IDRI contours and ratings, invented attenuation.'
  ' Not CT, and not evidence about any patient.'
)

PATCH_SIZE = phantom_lung.PATCH_SIZE

# The ratings that shape the image. Malignancy is left out: it is the label.
# Sphericity is in the contour already.
RATINGS_SHOWN = (
  'subtlety',
  'calcification',
  'margin',
  'lobulation',
  'spiculation',
  'texture',
)

# HU. The levels are those measured in nodules of three LIDC scans.
HU_RANGE = (-1024, 3071)  # 12-bit CT
GROUND_GLASS_HU, GROUND_GLASS_SD = -590.0, 160.0
SOLID_HU, SOLID_SD = 60.0, 70.0
LEVEL_SD = 25.0  # from nodule to nodule
CALCIUM_HU = 650.0  # above the nodule's level

PSF_PX = 0.75  # point spread of the scanner

SUBTLETY_CONTRAST = (0.7, 0.8, 0.88, 0.95, 1.0)  # at ratings 1 to 5
# Standard deviation of the edge at margin 1 to 5, mm; 0.2 is a step by now.
MARGIN_SD_MM = (2.2, 1.6, 1.1, 0.6, 0.2)
# A wider edge than this share of the inscribed radius would leave no core.
MAX_EDGE_SHARE = 0.55
SMOOTH_CONTOUR_PX = 0.6  # takes the pixel corners off the outline
FAR_PX = 20.0  # distances are cut here: no edge reaches farther
MAX_SPIKES, SPIKE_MM = 12, (2.5, 8.0)  # number, and length from rating 1+ to 5
SPIKE_RADIUS_PX = 0.75
MAX_SCALLOP = 0.22, 1.8  # of the equivalent radius, and at most so many px


def consensus_distance(reader_masks):
  """Signed distance to the two-thirds consensus outline, smoothed.

  A pixel is in the consensus if k = ceil(2n/3) of n readers agree. The k-th
  largest of the readers' signed distances vanishes exactly on that outline,
  and unlike the vote count it does not jump.

  Args:
    reader_masks: (num_readers, 64, 64) bool.

  Returns:
    (64, 64) float, px, positive inside.
  """
  masks = np.asarray(reader_masks, bool)
  # One transform for all: sheets (readers in and out) infinitely far apart.
  sheets = np.concatenate([masks, ~masks])
  apart = (1e4, 1, 1)
  inside, outside = np.split(
    ndimage.distance_transform_edt(sheets, sampling=apart), 2
  )
  distance = np.where(masks, inside - 0.5, 0.5 - outside)
  distance = np.clip(distance, -FAR_PX, FAR_PX)  # also a reader without contour
  rank = -(-2 * len(masks) // 3)
  distance = np.sort(distance, axis=0)[len(masks) - rank]
  return ndimage.gaussian_filter(distance, SMOOTH_CONTOUR_PX, truncate=3)


def simulate_patch(reader_masks, ratings, *, pixel_spacing_mm, rng):
  """Draws one SIMULATED CT patch around a nodule.

  Args:
    reader_masks: (num_readers, 64, 64) bool, the contours on one slice.
    ratings: dict, the readers' mean of each of `RATINGS_SHOWN` on the LIDC
      scales (subtlety, margin, lobulation, spiculation, texture 1 to 5,
      calcification 1 to 6); further entries are not looked at.
    pixel_spacing_mm: float, in the plane.
    rng: np.random.Generator. The background comes out of it the same whatever
      the ratings.

  Returns:
    (64, 64) int16, HU.

  Raises:
    ValueError: the masks have another shape.
    KeyError: a rating is missing.
  """
  if np.shape(reader_masks)[1:] != (PATCH_SIZE, PATCH_SIZE):
    raise ValueError(
      f'reader_masks has shape {np.shape(reader_masks)}, wanted '
      f'(num_readers, {PATCH_SIZE}, {PATCH_SIZE})'
    )
  shown = {name: float(ratings[name]) for name in RATINGS_SHOWN}
  background_rng, nodule_rng = rng.spawn(2)
  distance = consensus_distance(reader_masks)
  hu, noise = phantom_lung.background(
    distance, pixel_spacing_mm, background_rng
  )
  hu = _add_nodule(hu, distance, shown, pixel_spacing_mm, nodule_rng)
  hu = ndimage.gaussian_filter(hu, PSF_PX) + noise
  return np.rint(np.clip(hu, *HU_RANGE)).astype(np.int16)


def _add_nodule(hu, distance, ratings, spacing, rng):
  """Puts the nodule over the background: (64, 64) HU."""
  level_rng, texture_rng, edge_rng, spike_rng, calcium_rng = rng.spawn(5)
  inside = distance > 0
  if not inside.any():
    return hu
  inner_px = distance.max()
  radius_px = math.sqrt(inside.sum() / np.pi)
  centre = phantom_lung.ROWS[inside].mean(), phantom_lung.COLS[inside].mean()
  scale = np.arange(1, 6)

  # Texture: a solid core of growing share in a ground-glass halo.
  solid = np.interp(ratings['texture'], (1.5, 4.8), (0, 1))
  level = LEVEL_SD * level_rng.normal()
  halo_hu = GROUND_GLASS_HU + (SOLID_HU - GROUND_GLASS_HU) * solid**2
  core = np.clip(distance - (1 - solid) * inner_px + 0.5, 0, 1)
  core *= min(1, 2 * solid)
  target = level + halo_hu + core * (SOLID_HU - halo_hu)
  grain = GROUND_GLASS_SD + solid * (SOLID_SD - GROUND_GLASS_SD)
  target = target + grain * phantom_lung.noise(1.2, texture_rng)

  # Subtlety: the contrast with the lung around.
  lung = np.quantile(hu, 0.25)  # below vessels and wall
  contrast = np.interp(ratings['subtlety'], scale, SUBTLETY_CONTRAST)
  target = lung + contrast * (target - lung)
  target = target + _calcium(
    distance, centre, ratings['calcification'], calcium_rng
  )

  # Lobulation: scallops about the outline, as much out as in.
  lobes = (ratings['lobulation'] - 1) / 4
  angle = np.arctan2(
    phantom_lung.ROWS - centre[0], phantom_lung.COLS - centre[1]
  )
  scallop = (
    abs(
      np.sin(edge_rng.integers(4, 8) / 2 * angle + edge_rng.uniform(0, np.pi))
    )
    - 2 / np.pi
  )
  share, most = MAX_SCALLOP
  bumpy = distance + lobes * min(share * radius_px, most) * scallop
  # Margin: the width of the edge; half the contrast stays on the outline.
  edge_sd = np.interp(ratings['margin'], scale, MARGIN_SD_MM) / spacing
  edge_sd = min(edge_sd, MAX_EDGE_SHARE * inner_px)
  # A cubic step of half width w has standard deviation w / sqrt(5), and ends.
  step = np.clip(0.5 + bumpy / (2 * math.sqrt(5) * edge_sd), 0, 1)
  cover = step * step * (3 - 2 * step)
  cover = np.maximum(
    cover, _spikes(distance, centre, ratings['spiculation'], spacing, spike_rng)
  )
  # Only ever brighter, so that a vessel or the wall shines through.
  return hu + cover * np.maximum(target - hu, 0)


def _spikes(distance, centre, rating, spacing, rng):
  """Thin rays out of the contour, (64, 64) in [0, 1]; none at rating 1."""
  strength = (rating - 1) / 4
  turns = np.arange(MAX_SPIKES) + rng.uniform(-0.3, 0.3, MAX_SPIKES)
  angle = 2 * np.pi * turns[:, None] / MAX_SPIKES
  length = rng.uniform(0.6, 1.0, (MAX_SPIKES, 1))
  chosen = rng.permutation(MAX_SPIKES) < round(MAX_SPIKES * strength**0.5)
  reach = np.arange(0, PATCH_SIZE // 2, 0.5)  # px from the centre
  row = centre[0] + np.sin(angle) * reach
  col = centre[1] + np.cos(angle) * reach
  # Each ray starts where it leaves the nodule for good.
  start = np.max(
    reach
    * (distance[phantom_lung.to_index(row), phantom_lung.to_index(col)] > 0),
    1,
    keepdims=True,
  )
  length *= np.interp(strength, (0, 1), SPIKE_MM) / spacing
  t = (reach - start) / length
  share = (
    np.where((t >= -0.2) & (t <= 1), (0.35 + 0.5 * strength) * (1 - 0.6 * t), 0)
    * chosen[:, None]
  )
  drawn = share > 0
  return np.clip(
    phantom_lung.stamp(
      row[drawn],
      col[drawn],
      np.full(drawn.sum(), SPIKE_RADIUS_PX),
      share[drawn],
    ),
    0,
    1,
  )


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
      -((phantom_lung.ROWS - at[0]) ** 2 + (phantom_lung.COLS - at[1]) ** 2)
      / (2 * radius**2)
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


if __name__ == '__main__':
  # These need this module.
  from tfds_lidc import errors
  from tfds_lidc import phantom_dicom

  errors.exit_on_input_error(phantom_dicom.main)
