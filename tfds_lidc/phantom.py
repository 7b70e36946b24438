"""SIMULATED attenuation for nodules whose contours and ratings are real.

The readers' contours and ratings of LIDC-IDRI (Armato et al., Med. Phys. 38,
915, 2011) are public and small, its CT is 125 GB. Here the contours get an
invented CT: lung, vessels and chest wall whose statistics resemble real scans,
and a nodule that shows what the readers rated. It serves to exercise the whole
path without a download. Nothing measured on it says anything about patients.

Two rules keep it honest. The background knows the contours (a wall must not
cover the nodule) but no rating, and the nodule knows every rating except
malignancy, so that the label reaches the image only as far as the other
ratings and the outline tell it.
"""

import math

import numpy as np
from scipy import ndimage

DESCRIPTION = (
    'SIMULATED: real LIDC-IDRI contours and ratings, invented attenuation.'
    ' Not CT, and not evidence about any patient.')

PATCH_SIZE = 64  # px, the dataset's patch

# The ratings that shape the image. Malignancy is left out: it is the label.
# Sphericity is in the contour already.
RATINGS_SHOWN = ('subtlety', 'calcification', 'margin', 'lobulation',
                 'spiculation', 'texture')

# HU. Lung and nodule levels are those measured in three LIDC scans, the other
# tissues are the usual textbook values.
HU_RANGE = (-1024, 3071)  # 12-bit CT
LUNG_HU = (-995., -875.)  # bounds of a patch's mean lung: aeration differs
VESSEL_HU = 70.
MUSCLE_HU, FAT_HU, CORTEX_HU, MARROW_HU = 45., -95., 550., 250.
MEDIASTINUM_HU = (30., 160.)  # without and with contrast agent
GROUND_GLASS_HU, GROUND_GLASS_SD = -590., 160.
SOLID_HU, SOLID_SD = 60., 70.
LEVEL_SD = 25.  # from nodule to nodule
CALCIUM_HU = 650.  # above the nodule's level

# Shares of the patches. Half of the nodules lie near the pleura; few touch it,
# or an outline would not follow from the image.
WALL_SHARE, TOUCHING_SHARE, MEDIASTINUM_SHARE, RIB_SHARE = .5, .12, .4, .6
TUBE_NEAR_SHARE = .35  # of the vessels that would meet the nodule
TUBE_CLEARANCE_PX = 2.  # nearer than this, a vessel meets the nodule

# Point spread of the scanner and correlation length of its noise: the
# autocorrelation of flat lung was 0.70 and 0.31 at lags of 1 and 2 px, and a
# Gaussian of s px gives exp(-lag^2 / 4 s^2).
PSF_PX, NOISE_PX = .75, .85
NOISE_SD = (10., 32.)  # HU, low-dose scans are the noisy ones

SUBTLETY_CONTRAST = (.7, .8, .88, .95, 1.)  # at ratings 1 to 5
# Standard deviation of the edge at margin 1 to 5, mm; 0.2 is a step by now.
MARGIN_SD_MM = (2.2, 1.6, 1.1, .6, .2)
# A wider edge than this share of the inscribed radius would leave no core.
MAX_EDGE_SHARE = .55
SMOOTH_CONTOUR_PX = .6  # takes the pixel corners off the outline
FAR_PX = 20.  # distances are cut here: no edge reaches farther
MAX_SPIKES, SPIKE_MM = 12, (2.5, 8.)  # number, and length from rating 1+ to 5
SPIKE_RADIUS_PX = .75
MAX_SCALLOP = .22, 1.8  # of the equivalent radius, and at most so many px

_ROWS, _COLS = np.mgrid[:PATCH_SIZE, :PATCH_SIZE].astype(float)
_LOW = np.cos(np.pi * (np.arange(PATCH_SIZE)[:, None] + .5)
              * np.arange(1, 5) / PATCH_SIZE)  # (64, 4), a slow cosine basis


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
      ndimage.distance_transform_edt(sheets, sampling=apart), 2)
  distance = np.where(masks, inside - .5, .5 - outside)
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
    raise ValueError(f'reader_masks has shape {np.shape(reader_masks)}, wanted '
                     f'(num_readers, {PATCH_SIZE}, {PATCH_SIZE})')
  shown = {name: float(ratings[name]) for name in RATINGS_SHOWN}
  background_rng, nodule_rng = rng.spawn(2)
  distance = consensus_distance(reader_masks)
  hu, noise = _background(distance, pixel_spacing_mm, background_rng)
  hu = _add_nodule(hu, distance, shown, pixel_spacing_mm, nodule_rng)
  hu = ndimage.gaussian_filter(hu, PSF_PX) + noise
  return np.rint(np.clip(hu, *HU_RANGE)).astype(np.int16)


def _background(distance, spacing, rng):
  """Lung, vessels, perhaps a wall: (64, 64) HU without noise, and the noise."""
  lung_rng, vessel_rng, wall_rng, noise_rng = rng.spawn(4)
  low, high = LUNG_HU
  hu = low + (high - low) * lung_rng.beta(.6, 1.)
  # Sixteen slow waves of variance 1/4 each: together 16 HU.
  hu = hu + 8 * _LOW @ lung_rng.normal(size=(4, 4)) @ _LOW.T
  cover = _vessels(distance, spacing, vessel_rng)
  hu = hu + cover * (VESSEL_HU - hu)
  if wall_rng.random() < WALL_SHARE:
    tissue, cover = _wall(distance, spacing, wall_rng)
    hu = hu + cover * (tissue - hu)
  return hu, noise_rng.uniform(*NOISE_SD) * _noise(NOISE_PX, noise_rng)


def _noise(correlation_px, rng):
  """(64, 64) of unit variance, correlated as after a Gaussian of that width."""
  noise = ndimage.gaussian_filter(
      rng.normal(size=(PATCH_SIZE, PATCH_SIZE)), correlation_px, mode='wrap')
  # Sum of the squared weights of a 2-D Gaussian: 1 / (4 pi s^2).
  return noise * math.sqrt(4 * math.pi) * correlation_px


def _vessels(distance, spacing, rng):
  """Share of vessel in each pixel, (64, 64) in [0, 1]."""
  # How many, length mm (from, to), radius mm (from, to), points along each.
  kinds = ((rng.poisson(22), (1, 10), (.2, .55), 24),  # fine, much the most
           (rng.poisson(2.5), (8, 35), (.5, 1.1), 64),  # branches
           (rng.poisson(2), (0, 3), (.5, 1.2), 6),  # cut across: round
           (rng.random() < .15, (15, 45), (1.5, 2.8), 64))  # near the hilum
  fan = rng.uniform(0, 2 * np.pi)  # vessels of a region run alike
  cover = np.zeros((PATCH_SIZE, PATCH_SIZE))
  for count, lengths, radii, points in kinds:
    if not count:
      continue
    count = int(count)
    # Per vessel (count, 1): turn, bend, wave and its phase, place, size, share.
    turn = rng.normal(0, .7, (count, 1))
    bend, wave, phase, top, left, length, width, most = rng.uniform(
        *zip((-.7, .7), (0, .35), (0, 1), (0, PATCH_SIZE), (0, PATCH_SIZE),
             lengths, radii, (.4, 1)), size=(count, 8)).T[..., None]
    t = np.linspace(0, 1, points)
    angle = (fan + turn + bend * t
             + wave * np.sin(2 * np.pi * (phase + 2 * t)))
    row = top + np.cumsum(np.sin(angle), 1) * length / spacing / points
    col = left + np.cumsum(np.cos(angle), 1) * length / spacing / points
    radius = width / spacing * (1 - .5 * t)
    # The slice cuts a vessel only in part, and less and less of it at its ends.
    share = most * np.minimum(1, 6 * t * (1 - t) + .2)
    keep = rng.random(count) < TUBE_NEAR_SHARE
    nearest = distance[_clip(row), _clip(col)].max(1)
    # Only a fine vessel may run across the nodule: a thick one would hide it.
    keep &= (nearest < -radius[:, 0]) | (radii[1] < .6)
    keep |= nearest < -TUBE_CLEARANCE_PX - radius[:, 0]
    cover = np.maximum(cover, _stamp(
        row[keep], col[keep], radius[keep], share[keep]))
  return cover


def _clip(index):
  return np.clip(np.rint(index), 0, PATCH_SIZE - 1).astype(int)


def _stamp(row, col, radius, share):
  """Union of soft discs, (64, 64); arguments of one common shape, px."""
  if not row.size:
    return np.zeros((PATCH_SIZE, PATCH_SIZE))
  half = int(radius.max()) + 2  # reach of a disc
  points = np.stack([x.ravel() for x in (row, col, radius, share)])
  seen = np.all((points[:2] > .5 - half)
                & (points[:2] < PATCH_SIZE - 1.5 + half), axis=0)
  row, col, radius, share = points[:, seen, None]
  window = np.mgrid[-half:half + 1, -half:half + 1].reshape(2, 1, -1)
  rows, cols = np.rint(row) + window[0], np.rint(col) + window[1]
  value = share * np.clip(radius + .5 - np.hypot(rows - row, cols - col), 0, 1)
  pad = 2 * half  # room for the discs that stick out
  image = np.zeros((PATCH_SIZE + 2 * pad,) * 2)
  np.maximum.at(image, ((rows + pad).astype(int), (cols + pad).astype(int)),
                value)
  return image[pad:-pad, pad:-pad]


def _wall(distance, spacing, rng):
  """Chest wall or mediastinum on one side: HU and share, (64, 64) each."""
  angle = rng.uniform(0, 2 * np.pi)
  centre = (PATCH_SIZE - 1) / 2
  out = ((_ROWS - centre) * math.sin(angle)
         + (_COLS - centre) * math.cos(angle)) * spacing
  along = ((_COLS - centre) * math.sin(angle)
           - (_ROWS - centre) * math.cos(angle)) * spacing
  mediastinum = rng.random() < MEDIASTINUM_SHARE
  # The ribs surround the lung, the heart and the diaphragm bulge into it.
  bend = rng.uniform(.004, .012) * (-1 if mediastinum else 1)  # half curvature
  depth = out + bend * along**2 + .8 * np.sin(
      along / rng.uniform(4, 9) + rng.uniform(0, 2 * np.pi))
  # From the nodule's edge to the pleura, mm.
  touching = rng.random() < TOUCHING_SHARE / WALL_SHARE
  gap = rng.uniform(-1, 1) if touching else 2.5 + rng.exponential(7)
  depth = depth - np.max(depth[distance > 0], initial=0) - gap
  if mediastinum:
    tissue = np.full_like(depth, rng.uniform(*MEDIASTINUM_HU))
  else:
    inner, fat = rng.uniform(2, 6), rng.uniform(2, 10)
    tissue = np.where((depth > inner) & (depth < inner + fat),
                      FAT_HU, MUSCLE_HU)
    if rng.random() < RIB_SHARE:
      shell = np.hypot((along - rng.uniform(-20, 20)) / rng.uniform(8, 18),
                       (depth - rng.uniform(5, 7)) / 4)
      tissue = np.where(shell < 1, CORTEX_HU, tissue)
      tissue = np.where(shell < .6, MARROW_HU, tissue)
  return tissue, np.clip(depth / spacing + .5, 0, 1)


def _add_nodule(hu, distance, ratings, spacing, rng):
  """Puts the nodule over the background: (64, 64) HU."""
  level_rng, texture_rng, edge_rng, spike_rng, calcium_rng = rng.spawn(5)
  inside = distance > 0
  if not inside.any():
    return hu
  inner_px = distance.max()
  radius_px = math.sqrt(inside.sum() / np.pi)
  centre = _ROWS[inside].mean(), _COLS[inside].mean()
  scale = np.arange(1, 6)

  # Texture: a solid core of growing share in a ground-glass halo.
  solid = np.interp(ratings['texture'], (1.5, 4.8), (0, 1))
  level = LEVEL_SD * level_rng.normal()
  halo_hu = GROUND_GLASS_HU + (SOLID_HU - GROUND_GLASS_HU) * solid**2
  core = np.clip(distance - (1 - solid) * inner_px + .5, 0, 1)
  core *= min(1, 2 * solid)
  target = level + halo_hu + core * (SOLID_HU - halo_hu)
  grain = GROUND_GLASS_SD + solid * (SOLID_SD - GROUND_GLASS_SD)
  target = target + grain * _noise(1.2, texture_rng)

  # Subtlety: the contrast with the lung around.
  lung = np.quantile(hu, .25)  # below vessels and wall
  contrast = np.interp(ratings['subtlety'], scale, SUBTLETY_CONTRAST)
  target = lung + contrast * (target - lung)
  target = target + _calcium(distance, centre, ratings['calcification'],
                             calcium_rng)

  # Lobulation: scallops about the outline, as much out as in.
  lobes = (ratings['lobulation'] - 1) / 4
  angle = np.arctan2(_ROWS - centre[0], _COLS - centre[1])
  scallop = abs(np.sin(edge_rng.integers(4, 8) / 2 * angle
                       + edge_rng.uniform(0, np.pi))) - 2 / np.pi
  share, most = MAX_SCALLOP
  bumpy = distance + lobes * min(share * radius_px, most) * scallop
  # Margin: the width of the edge; half the contrast stays on the outline.
  edge_sd = np.interp(ratings['margin'], scale, MARGIN_SD_MM) / spacing
  edge_sd = min(edge_sd, MAX_EDGE_SHARE * inner_px)
  # A cubic step of half width w has standard deviation w / sqrt(5), and ends.
  step = np.clip(.5 + bumpy / (2 * math.sqrt(5) * edge_sd), 0, 1)
  cover = step * step * (3 - 2 * step)
  cover = np.maximum(cover, _spikes(
      distance, centre, ratings['spiculation'], spacing, spike_rng))
  # Only ever brighter, so that a vessel or the wall shines through.
  return hu + cover * np.maximum(target - hu, 0)


def _spikes(distance, centre, rating, spacing, rng):
  """Thin rays out of the contour, (64, 64) in [0, 1]; none at rating 1."""
  strength = (rating - 1) / 4
  turns = (np.arange(MAX_SPIKES) + rng.uniform(-.3, .3, MAX_SPIKES))
  angle = 2 * np.pi * turns[:, None] / MAX_SPIKES
  length = rng.uniform(.6, 1., (MAX_SPIKES, 1))
  chosen = rng.permutation(MAX_SPIKES) < round(MAX_SPIKES * strength**.5)
  reach = np.arange(0, PATCH_SIZE // 2, .5)  # px from the centre
  row = centre[0] + np.sin(angle) * reach
  col = centre[1] + np.cos(angle) * reach
  # Each ray starts where it leaves the nodule for good.
  start = np.max(reach * (distance[_clip(row), _clip(col)] > 0), 1,
                 keepdims=True)
  length *= np.interp(strength, (0, 1), SPIKE_MM) / spacing
  t = (reach - start) / length
  share = np.where((t >= -.2) & (t <= 1), (.35 + .5 * strength) * (1 - .6 * t),
                   0) * chosen[:, None]
  drawn = share > 0
  return np.clip(_stamp(row[drawn], col[drawn],
                        np.full(drawn.sum(), SPIKE_RADIUS_PX), share[drawn]),
                 0, 1)


def _calcium(distance, centre, rating, rng):
  """HU added by calcification, (64, 64); nothing at rating 6 (absent).

  The LIDC scale is categorical: 1 popcorn, 2 laminated, 3 solid, 4 non-central,
  5 central. A mean over readers picks the nearest pattern, and the readers who
  saw none weaken it.
  """
  depth = distance / distance.max()  # 1 in the deepest point, 0 on the contour
  deep = np.argwhere(depth > .3)
  spots = deep[rng.integers(len(deep), size=4)]
  radius = max(.35 * math.sqrt((distance > 0).sum() / np.pi), 1)

  def spot(at):
    return np.exp(-((_ROWS - at[0])**2 + (_COLS - at[1])**2) / (2 * radius**2))

  kind = int(np.clip(math.floor(rating + .5), 1, 5))
  if kind == 1:
    pattern = np.max([spot(c) for c in spots], 0)
  elif kind == 2:
    pattern = .5 + .5 * np.cos(2 * np.pi * np.clip(distance, 0, None) / 3)
  elif kind == 3:
    pattern = np.ones_like(distance)
  elif kind == 4:
    pattern = spot(deep[np.argmin(depth[tuple(deep.T)])])
  else:
    pattern = spot(centre)
  inside = np.clip(distance + .5, 0, 1)
  return min(max(6 - rating, 0), 1) * CALCIUM_HU * pattern * inside
