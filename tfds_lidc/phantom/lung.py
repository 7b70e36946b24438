"""SIMULATED lung around a nodule: parenchyma, vessels and wall.

It knows the nodule's outline (a wall must not cover it) but no rating, so that
nothing here can give the label away. Why and for what: see `patch`.
"""

import math

import numpy as np

from tfds_lidc.phantom import vessels

PATCH_SIZE = vessels.PATCH_SIZE

# HU. The lung's level is that around real nodules (`tools.compare_phantom`):
# mean and standard deviation over patches, and bounds, for aeration differs.
# Those of the other tissues are the usual textbook values.
LUNG_HU, LUNG_SD, LUNG_RANGE = -876.0, 40.0, (-985.0, -775.0)
VESSEL_HU = 60.0
MUSCLE_HU, FAT_HU, CORTEX_HU, MARROW_HU = 45.0, -95.0, 550.0, 250.0
MEDIASTINUM_HU = (30.0, 160.0)  # without and with contrast agent

# Lung next to a nodule is denser: the nodule bulges into the slice, presses on
# its surroundings, bleeds or is inflamed.
HALO_HU, HALO_MM = 30.0, 2.5

# Shares of the patches. Two thirds of the nodules lie near the pleura, and of
# all a quarter touch it.
WALL_SHARE, TOUCHING_SHARE, MEDIASTINUM_SHARE, RIB_SHARE = 0.65, 0.27, 0.4, 0.8

ROWS, COLS = np.mgrid[:PATCH_SIZE, :PATCH_SIZE].astype(float)
_LOW = np.cos(
  np.pi * (np.arange(PATCH_SIZE)[:, None] + 0.5) * np.arange(1, 5) / PATCH_SIZE
)  # (64, 4), a slow cosine basis


def background(distance, spacing, rng):
  """Lung, vessels, perhaps a wall: (64, 64) HU."""
  lung_rng, vessel_rng, wall_rng = rng.spawn(3)
  hu = np.clip(lung_rng.normal(LUNG_HU, LUNG_SD), *LUNG_RANGE)
  # Sixteen slow waves of variance 1/4 each: together 16 HU.
  hu = hu + 8 * _LOW @ lung_rng.normal(size=(4, 4)) @ _LOW.T
  halo = HALO_HU * lung_rng.lognormal(0, 0.5)
  hu = hu + halo * np.exp(np.minimum(distance, 0) * spacing / HALO_MM)
  cover = vessels.vessels(distance, spacing, vessel_rng)
  hu = hu + cover * (VESSEL_HU - hu)
  if wall_rng.random() < WALL_SHARE:
    tissue, cover = _wall(distance, spacing, wall_rng)
    hu = hu + cover * (tissue - hu)
  return hu


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
  gap = rng.uniform(-1, 1) if touching else 1.5 + rng.exponential(5)
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
  # A wall that slants through the slice, as the diaphragm does, fades out.
  fade = rng.uniform(0, 4) if mediastinum else 0
  return tissue, np.clip(depth / max(fade, spacing) + 0.5, 0, 1)
