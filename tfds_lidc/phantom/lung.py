"""Simulates the lung around a nodule: parenchyma, vessels and wall.

This module uses the nodule's contour (a wall must not cover the nodule) but no
rating, so that it cannot leak the label. `patch` explains the purpose.
"""

import math

import numpy as np

from tfds_lidc.phantom import vessels

PATCH_SIZE = vessels.PATCH_SIZE

# All levels are in HU. The lung's level was measured around real nodules
# (`tools.compare_phantom`): mean, standard deviation over patches, and bounds,
# since aeration differs. The other tissues have the usual textbook values.
LUNG_HU, LUNG_SD, LUNG_RANGE = -876.0, 40.0, (-985.0, -775.0)
VESSEL_HU = 60.0
MUSCLE_HU, FAT_HU, CORTEX_HU, MARROW_HU = 45.0, -95.0, 550.0, 250.0
MEDIASTINUM_HU = (30.0, 160.0)  # without and with contrast agent

# Lung next to a nodule is denser, because the nodule extends into the slice
# partly, compresses its surroundings, bleeds or is inflamed.
HALO_HU, HALO_MM = 30.0, 2.5

# Shares of patches. Two thirds of all nodules are near the pleura, and a
# quarter of all touch it.
WALL_SHARE, TOUCHING_SHARE, MEDIASTINUM_SHARE, RIB_SHARE = 0.65, 0.27, 0.4, 0.8

ROWS, COLS = np.mgrid[:PATCH_SIZE, :PATCH_SIZE].astype(float)
_LOW = np.cos(
  np.pi * (np.arange(PATCH_SIZE)[:, None] + 0.5) * np.arange(1, 5) / PATCH_SIZE
)  # (64, 4), a basis of low-frequency cosines


def background(
  distance: np.ndarray, spacing_mm: float, rng: np.random.Generator
) -> np.ndarray:
  """Draws lung, vessels and, in some patches, a wall.

  Args:
    distance: (64, 64) px, signed distance to the contour, positive inside.
    spacing_mm: size of a pixel.
    rng: source of randomness.

  Returns:
    (64, 64) HU.
  """
  lung_rng, vessel_rng, wall_rng = rng.spawn(3)
  level = np.clip(lung_rng.normal(LUNG_HU, LUNG_SD), *LUNG_RANGE)
  # Sixteen slow waves with a mean square of 1/4 each: together 16 HU.
  hu = level + 8 * _LOW @ lung_rng.normal(size=(4, 4)) @ _LOW.T
  halo = HALO_HU * lung_rng.lognormal(0, 0.5)
  hu = hu + halo * np.exp(np.minimum(distance, 0) * spacing_mm / HALO_MM)
  cover = vessels.vessels(distance, spacing_mm, vessel_rng)
  hu = hu + cover * (VESSEL_HU - hu)
  if wall_rng.random() < WALL_SHARE:
    tissue, cover = _wall(distance, spacing_mm, wall_rng)
    hu = hu + cover * (tissue - hu)
  return hu


def _wall(
  distance: np.ndarray, spacing_mm: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a chest wall or mediastinum on one side.

  Args:
    distance: as in `background`.
    spacing_mm: as in `background`.
    rng: source of randomness.

  Returns:
    HU and cover (the share of each pixel), (64, 64) each.
  """
  angle = rng.uniform(0, 2 * np.pi)
  centre = (PATCH_SIZE - 1) / 2
  out = (
    (ROWS - centre) * math.sin(angle) + (COLS - centre) * math.cos(angle)
  ) * spacing_mm
  along = (
    (COLS - centre) * math.sin(angle) - (ROWS - centre) * math.cos(angle)
  ) * spacing_mm
  mediastinum = rng.random() < MEDIASTINUM_SHARE
  # Half the curvature. Ribs surround the lung, but the heart and the diaphragm
  # bulge into it.
  bend = rng.uniform(0.004, 0.012) * (-1 if mediastinum else 1)
  depth = (
    out
    + bend * along**2
    + 0.8 * np.sin(along / rng.uniform(4, 9) + rng.uniform(0, 2 * np.pi))
  )
  # Distance in mm from the nodule's edge to the pleura.
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
  # A wall that is oblique to the slice, such as the diaphragm, fades out.
  fade = rng.uniform(0, 4) if mediastinum else 0
  return tissue, np.clip(depth / max(fade, spacing_mm) + 0.5, 0, 1)
