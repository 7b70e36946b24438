"""SIMULATED lung around a nodule: parenchyma, vessels, wall and noise.

It knows the nodule's outline (a wall must not cover it) but no rating, so that
nothing here can give the label away. Why and for what: see `phantom`.
"""

import math

import numpy as np
from scipy import ndimage

PATCH_SIZE = 64  # px, the dataset's patch

# HU. The lung's level is that of three LIDC scans, the other tissues' are the
# usual textbook values.
LUNG_HU = (-995.0, -875.0)  # bounds of a patch's mean lung: aeration differs
VESSEL_HU = 70.0
MUSCLE_HU, FAT_HU, CORTEX_HU, MARROW_HU = 45.0, -95.0, 550.0, 250.0
MEDIASTINUM_HU = (30.0, 160.0)  # without and with contrast agent

# Shares of the patches. Half of the nodules lie near the pleura; few touch it,
# or an outline would not follow from the image.
WALL_SHARE, TOUCHING_SHARE, MEDIASTINUM_SHARE, RIB_SHARE = 0.5, 0.12, 0.4, 0.6
TUBE_NEAR_SHARE = 0.35  # of the vessels that would meet the nodule
TUBE_CLEARANCE_PX = 2.0  # nearer than this, a vessel meets the nodule

# Correlation length of the scanner's noise: the autocorrelation of flat lung
# was 0.70 and 0.31 at lags of 1 and 2 px, and a Gaussian of s px gives
# exp(-lag^2 / 4 s^2).
NOISE_PX = 0.85
NOISE_SD = (10.0, 32.0)  # HU, low-dose scans are the noisy ones

ROWS, COLS = np.mgrid[:PATCH_SIZE, :PATCH_SIZE].astype(float)
_LOW = np.cos(
  np.pi * (np.arange(PATCH_SIZE)[:, None] + 0.5) * np.arange(1, 5) / PATCH_SIZE
)  # (64, 4), a slow cosine basis


def background(distance, spacing, rng):
  """Lung, vessels, perhaps a wall: (64, 64) HU without noise, and the noise."""
  lung_rng, vessel_rng, wall_rng, noise_rng = rng.spawn(4)
  low, high = LUNG_HU
  hu = low + (high - low) * lung_rng.beta(0.6, 1.0)
  # Sixteen slow waves of variance 1/4 each: together 16 HU.
  hu = hu + 8 * _LOW @ lung_rng.normal(size=(4, 4)) @ _LOW.T
  cover = _vessels(distance, spacing, vessel_rng)
  hu = hu + cover * (VESSEL_HU - hu)
  if wall_rng.random() < WALL_SHARE:
    tissue, cover = _wall(distance, spacing, wall_rng)
    hu = hu + cover * (tissue - hu)
  return hu, noise_rng.uniform(*NOISE_SD) * noise(NOISE_PX, noise_rng)


def _vessels(distance, spacing, rng):
  """Share of vessel in each pixel, (64, 64) in [0, 1]."""
  # How many, length mm (from, to), radius mm (from, to), points along each.
  kinds = (
    (rng.poisson(22), (1, 10), (0.2, 0.55), 24),  # fine, much the most
    (rng.poisson(2.5), (8, 35), (0.5, 1.1), 64),  # branches
    (rng.poisson(2), (0, 3), (0.5, 1.2), 6),  # cut across: round
    (rng.random() < 0.15, (15, 45), (1.5, 2.8), 64),
  )  # near the hilum
  fan = rng.uniform(0, 2 * np.pi)  # vessels of a region run alike
  cover = np.zeros((PATCH_SIZE, PATCH_SIZE))
  for count, lengths, radii, points in kinds:
    if not count:
      continue
    count = int(count)
    # Per vessel (count, 1): turn, bend, wave and its phase, place, size, share.
    turn = rng.normal(0, 0.7, (count, 1))
    bend, wave, phase, top, left, length, width, most = rng.uniform(
      *zip(
        (-0.7, 0.7),
        (0, 0.35),
        (0, 1),
        (0, PATCH_SIZE),
        (0, PATCH_SIZE),
        lengths,
        radii,
        (0.4, 1),
        strict=True,
      ),
      size=(count, 8),
    ).T[..., None]
    t = np.linspace(0, 1, points)
    angle = fan + turn + bend * t + wave * np.sin(2 * np.pi * (phase + 2 * t))
    row = top + np.cumsum(np.sin(angle), 1) * length / spacing / points
    col = left + np.cumsum(np.cos(angle), 1) * length / spacing / points
    radius = width / spacing * (1 - 0.5 * t)
    # The slice cuts a vessel only in part, and less and less of it at its ends.
    share = most * np.minimum(1, 6 * t * (1 - t) + 0.2)
    keep = rng.random(count) < TUBE_NEAR_SHARE
    nearest = distance[to_index(row), to_index(col)].max(1)
    # Only a fine vessel may run across the nodule: a thick one would hide it.
    keep &= (nearest < -radius[:, 0]) | (radii[1] < 0.6)
    keep |= nearest < -TUBE_CLEARANCE_PX - radius[:, 0]
    cover = np.maximum(
      cover, stamp(row[keep], col[keep], radius[keep], share[keep])
    )
  return cover


def _wall(distance, spacing, rng):
  """Chest wall or mediastinum on one side: HU and share, (64, 64) each."""
  angle = rng.uniform(0, 2 * np.pi)
  centre = (PATCH_SIZE - 1) / 2
  out = (
    (ROWS - centre) * math.sin(angle) + (COLS - centre) * math.cos(angle)
  ) * spacing
  along = (
    (COLS - centre) * math.sin(angle) - (ROWS - centre) * math.cos(angle)
  ) * spacing
  mediastinum = rng.random() < MEDIASTINUM_SHARE
  # The ribs surround the lung, the heart and the diaphragm bulge into it.
  bend = rng.uniform(0.004, 0.012) * (
    -1 if mediastinum else 1
  )  # half curvature
  depth = (
    out
    + bend * along**2
    + 0.8 * np.sin(along / rng.uniform(4, 9) + rng.uniform(0, 2 * np.pi))
  )
  # From the nodule's edge to the pleura, mm.
  touching = rng.random() < TOUCHING_SHARE / WALL_SHARE
  gap = rng.uniform(-1, 1) if touching else 2.5 + rng.exponential(7)
  depth = depth - np.max(depth[distance > 0], initial=0) - gap
  if mediastinum:
    tissue = np.full_like(depth, rng.uniform(*MEDIASTINUM_HU))
  else:
    inner, fat = rng.uniform(2, 6), rng.uniform(2, 10)
    tissue = np.where(
      (depth > inner) & (depth < inner + fat), FAT_HU, MUSCLE_HU
    )
    if rng.random() < RIB_SHARE:
      shell = np.hypot(
        (along - rng.uniform(-20, 20)) / rng.uniform(8, 18),
        (depth - rng.uniform(5, 7)) / 4,
      )
      tissue = np.where(shell < 1, CORTEX_HU, tissue)
      tissue = np.where(shell < 0.6, MARROW_HU, tissue)
  return tissue, np.clip(depth / spacing + 0.5, 0, 1)


def noise(correlation_px, rng):
  """(64, 64) of unit variance, correlated as after a Gaussian of that width."""
  noise = ndimage.gaussian_filter(
    rng.normal(size=(PATCH_SIZE, PATCH_SIZE)), correlation_px, mode='wrap'
  )
  # Sum of the squared weights of a 2-D Gaussian: 1 / (4 pi s^2).
  return noise * math.sqrt(4 * math.pi) * correlation_px


def stamp(row, col, radius, share):
  """Union of soft discs, (64, 64); arguments of one common shape, px."""
  if not row.size:
    return np.zeros((PATCH_SIZE, PATCH_SIZE))
  half = int(radius.max()) + 2  # reach of a disc
  points = np.stack([x.ravel() for x in (row, col, radius, share)])
  seen = np.all(
    (points[:2] > 0.5 - half) & (points[:2] < PATCH_SIZE - 1.5 + half), axis=0
  )
  row, col, radius, share = points[:, seen, None]
  window = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, 1, -1)
  rows, cols = np.rint(row) + window[0], np.rint(col) + window[1]
  value = share * np.clip(radius + 0.5 - np.hypot(rows - row, cols - col), 0, 1)
  pad = 2 * half  # room for the discs that stick out
  image = np.zeros((PATCH_SIZE + 2 * pad,) * 2)
  np.maximum.at(
    image, ((rows + pad).astype(int), (cols + pad).astype(int)), value
  )
  return image[pad:-pad, pad:-pad]


def to_index(index):
  return np.clip(np.rint(index), 0, PATCH_SIZE - 1).astype(int)
