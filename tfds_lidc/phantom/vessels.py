"""Simulates vessels: trees in three dimensions, seen in one slice.

A slice through trees looks like lung: a perpendicular vessel is a disc, an
oblique one a streak, and a branching in the plane a fork.
"""

import math
from typing import NamedTuple

import numpy as np

PATCH_SIZE = 64  # px, the dataset's patch

SLAB_MM = (1.0, 3.0)  # range of the slice thickness
# Largest distance of roots of trees from the patch, and from the slice.
AROUND_MM, ABOVE_MM = 8.0, 6.0
TREES_PER_CM3 = 5.0
# Radii of trunks follow a power law in this range, as in a self-similar tree.
TRUNK_MM, TRUNK_POWER = (0.22, 2.0), 2.0
GENERATIONS = 5
FINEST_MM = 0.13  # radius below which vessels are invisible
LENGTH_PER_RADIUS = (7, 15)
# A vessel continues nearly straight and has a thinner branch to the side. For
# both: radius as a share of the parent's, and size of the turn.
CONTINUATION, BRANCH = (0.87, 0.2), (0.6, 1.0)
# Points along each vessel, and the distance at which they are dense enough.
POINTS, STEP_PX = 36, 0.5

FINE_MM = 0.4  # radius below which a vessel may cross a nodule
CLEARANCE_PX = 2.0  # a vessel closer than this meets the nodule
MEETING_SHARE = 0.75  # share of these vessels that are kept

FEEDERS = 0.8  # mean number of vessels that lead to the nodule
FEEDER_RADIUS_MM, FEEDER_LENGTH_MM = (0.3, 0.8), (4, 20)


class _Tubes(NamedTuple):
  """n vessels; coordinates in mm from the patch's corner and from the slice."""

  start: np.ndarray  # (3, n): row, column, z
  direction: np.ndarray  # (3, n), of length 1
  bend: np.ndarray  # (3, n), change of the direction
  length: np.ndarray  # (n,)
  radius: np.ndarray  # (n,)
  is_trunk: np.ndarray  # (n,) bool

  def at(self, t: float | np.ndarray) -> np.ndarray:
    """Returns positions at a share t of the length.

    Args:
      t: a scalar or (..., 1), from 0 to 1.

    Returns:
      (..., 3, n).
    """
    return self.start + self.length * t * (self.direction + self.bend * t)


def vessels(
  distance: np.ndarray, spacing_mm: float, rng: np.random.Generator
) -> np.ndarray:
  """Draws the share of each pixel that vessels cover.

  Args:
    distance: (64, 64) px, positive inside the nodule.
    spacing_mm: size of a pixel.
    rng: source of randomness.

  Returns:
    (64, 64) in [0, 1].
  """
  tree_rng, keep_rng, feeder_rng = rng.spawn(3)
  slab_mm = tree_rng.uniform(*SLAB_MM)
  tubes = _trees(spacing_mm, tree_rng)
  near = _near_slice(tubes, slab_mm, spacing_mm)
  tubes = _Tubes(*(x[..., near] for x in tubes))
  row, col, radius, share = _cut(tubes, slab_mm, spacing_mm)
  nearest = np.where(share > 0, distance[to_index(row), to_index(col)], -np.inf)
  nearest = nearest.max(axis=0) + radius.max(axis=0)
  keep = (nearest < 0) | (tubes.radius < FINE_MM)
  keep &= keep_rng.random(len(keep)) < MEETING_SHARE
  keep |= nearest < -CLEARANCE_PX
  seen = keep & (share > 0)
  cover = stamp(row[seen], col[seen], radius[seen], share[seen])
  return np.maximum(cover, _feeders(distance, slab_mm, spacing_mm, feeder_rng))


def _trees(spacing_mm: float, rng: np.random.Generator) -> _Tubes:
  """Draws all vessels of all trees around the patch."""
  low = np.array([[-AROUND_MM], [-AROUND_MM], [-ABOVE_MM]])
  side = PATCH_SIZE * spacing_mm + AROUND_MM
  high = np.array([[side], [side], [ABOVE_MM]])
  count = rng.poisson(TREES_PER_CM3 * np.prod(high - low) / 1000)
  start = rng.uniform(low, high, (3, count))
  # The vessels of a region come from the same side, that of the hilum.
  angle = rng.uniform(0, 2 * np.pi)
  fan = np.array([[math.sin(angle)], [math.cos(angle)], [rng.normal(0, 0.4)]])
  direction = _unit(fan + rng.normal(0, 0.5, (3, count)))
  thin, thick = (r**-TRUNK_POWER for r in TRUNK_MM)
  radius = rng.uniform(thick, thin, count) ** (-1 / TRUNK_POWER)
  shares, turns = zip(CONTINUATION, BRANCH, strict=True)
  generations = []
  for generation in range(GENERATIONS):
    visible = radius > FINEST_MM
    start, direction = start[:, visible], direction[:, visible]
    radius = radius[visible]
    count = len(radius)
    length = radius * rng.uniform(*LENGTH_PER_RADIUS, count)
    bend = rng.normal(0, 0.25, (3, count))
    is_trunk = np.full(count, generation == 0)
    tubes = _Tubes(start, direction, bend, length, radius, is_trunk)
    generations.append(tubes)
    start = np.tile(tubes.at(1.0), 2)
    onward = np.tile(_unit(direction + 2 * bend), 2)
    turn = np.repeat(turns, count) * _unit(rng.normal(size=onward.shape))
    direction = _unit(onward + turn)
    radius = np.repeat(shares, count) * np.tile(radius, 2)
    radius = radius * rng.uniform(0.85, 1.1, 2 * count)
  return _Tubes(
    *(np.concatenate(x, axis=-1) for x in zip(*generations, strict=True))
  )


def _near_slice(tubes: _Tubes, slab_mm: float, spacing_mm: float) -> np.ndarray:
  """Returns which tubes may be visible in the patch: (n,) bool."""
  path = [tubes.at(t) for t in (0.0, 0.5, 1.0)]
  low = np.minimum.reduce(path) - tubes.radius
  high = np.maximum.reduce(path) + tubes.radius
  side = PATCH_SIZE * spacing_mm
  outside = (low > [[side], [side], [slab_mm / 2]]) | (
    high < [[0], [0], [-slab_mm / 2]]
  )
  return ~outside.any(axis=0)


def _cut(
  tubes: _Tubes, slab_mm: float, spacing_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Returns row, column, radius (px) and share of points: (POINTS, n) each."""
  t = np.linspace(0, 1, POINTS)[:, None]
  row, col, z_mm = np.moveaxis(tubes.at(t[:, None]), 1, 0)
  # A trunk starts thin, and every vessel tapers to the radius of its
  # continuation.
  swell = np.where(tubes.is_trunk, np.minimum(1, 0.3 + 2 * t), 1)
  radius = tubes.radius * swell * (1 + (CONTINUATION[0] - 1) * t)
  # Share of the slice thickness that the vessel fills; a perpendicular one
  # fills all of it.
  slant = np.sqrt(1.0001 - tubes.direction[2] ** 2)
  fill = np.minimum(1, 2 * radius / (slab_mm * slant))
  share = fill * _inside(z_mm, radius, slab_mm)
  # Short vessels do not need all points.
  stride = np.maximum(1, POINTS * STEP_PX * spacing_mm // tubes.length)
  share[np.arange(POINTS)[:, None] % stride > 0] = 0
  return row / spacing_mm, col / spacing_mm, radius / spacing_mm, share


def _inside(z_mm: np.ndarray, radius: np.ndarray, slab_mm: float) -> np.ndarray:
  """Returns the share of a vessel's width, or of the slice's, in the slice."""
  overlap = slab_mm / 2 + radius - abs(z_mm)
  return np.clip(overlap / np.minimum(slab_mm, 2 * radius), 0, 1)


def _feeders(
  distance: np.ndarray,
  slab_mm: float,
  spacing_mm: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """Draws the share of vessels that lead into the nodule: (64, 64)."""
  count = rng.poisson(FEEDERS)
  inside = distance > 0
  cover = np.zeros((PATCH_SIZE, PATCH_SIZE))
  if not count or not inside.any():
    return cover
  centre = np.argwhere(inside).mean(axis=0)
  nodule_mm = math.sqrt(inside.sum() / np.pi) * spacing_mm  # its radius
  angle = rng.uniform(0, 2 * np.pi, (count, 1))
  length = rng.uniform(*FEEDER_LENGTH_MM, (count, 1)) + nodule_mm
  radius = np.minimum(rng.uniform(*FEEDER_RADIUS_MM, (count, 1)), nodule_mm / 2)
  t = np.linspace(0, 1, 2 * POINTS)
  angle = angle + rng.normal(0, 0.5, (count, 1)) * t
  step = length / spacing_mm / len(t)
  row = centre[0] + np.cumsum(np.sin(angle), 1) * step
  col = centre[1] + np.cumsum(np.cos(angle), 1) * step
  # The vessel leaves the slice gradually.
  z_mm = abs(rng.normal(0, 0.12, (count, 1)) * t * length)
  radius = radius * (1.1 - 0.3 * t)
  fill = np.minimum(1, 2 * radius / slab_mm)
  share = fill * _inside(z_mm, radius, slab_mm)
  points = (x.ravel() for x in (row, col, radius / spacing_mm, share))
  return stamp(*points)


def _unit(vectors: np.ndarray) -> np.ndarray:
  """Scales vectors (3, n) to length 1."""
  return vectors / np.sqrt(np.square(vectors).sum(axis=0))


def stamp(
  row: np.ndarray, col: np.ndarray, radius: np.ndarray, share: np.ndarray
) -> np.ndarray:
  """Draws the union (maximum) of soft discs.

  Args:
    row: (n,) px, of the centres.
    col: (n,) px, of the centres.
    radius: (n,) px.
    share: (n,), the value of each disc.

  Returns:
    (64, 64).
  """
  image = np.zeros((PATCH_SIZE, PATCH_SIZE))
  # Most discs are small, so discs of similar size share a small window.
  for low, high in ((-1, 1), (1, 2), (2, 4), (4, math.inf)):
    some = (low < radius) & (radius <= high)
    if some.any():
      discs = row[some], col[some], radius[some], share[some]
      np.maximum(image, _stamp(*discs), out=image)
  return image


def _stamp(
  row: np.ndarray, col: np.ndarray, radius: np.ndarray, share: np.ndarray
) -> np.ndarray:
  """Draws discs as `stamp` does, all in windows of the largest one's size."""
  half = math.ceil(radius.max())  # reach of a disc from its rounded centre
  points = np.stack([row, col, radius, share])
  seen = np.all(
    (points[:2] > -0.5 - half) & (points[:2] < PATCH_SIZE - 0.5 + half), axis=0
  )
  row, col, radius, share = points[:, seen, None]
  window = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, 1, -1)
  rows, cols = np.rint(row) + window[0], np.rint(col) + window[1]
  value = share * np.clip(radius + 0.5 - np.hypot(rows - row, cols - col), 0, 1)
  pad = 2 * half + 1  # room for discs that extend beyond the patch
  image = np.zeros((PATCH_SIZE + 2 * pad,) * 2)
  np.maximum.at(
    image, ((rows + pad).astype(int), (cols + pad).astype(int)), value
  )
  return image[pad:-pad, pad:-pad]


def to_index(position: np.ndarray) -> np.ndarray:
  """Rounds rows or columns, which may lie outside, to pixels of the patch."""
  return np.clip(np.rint(position), 0, PATCH_SIZE - 1).astype(int)
