"""SIMULATED vessels: trees in three dimensions, seen in one slice.

A slice cuts a tree into what lung looks like: rounds where a vessel stands
upright, streaks where it slants, forks where it lies in the plane.
"""

import math
from typing import NamedTuple

import numpy as np

PATCH_SIZE = 64  # px, the dataset's patch

SLAB_MM = (1.0, 3.0)  # the slice's thickness
# Trees start up to so far outside of the patch, and above and below the slice.
AROUND_MM, ABOVE_MM = 8.0, 6.0
TREES_PER_CM3 = 5.0
# Radius of a trunk: a power law between these, as in a self-similar tree.
TRUNK_MM, TRUNK_POWER = (0.22, 2.0), 2.0
GENERATIONS = 5
FINEST_MM = 0.13  # thinner ones do not show
LENGTH_PER_RADIUS = (7, 15)
# A vessel goes on nearly straight, and sends out a thinner one sideways:
# radius as a share of the parent's, and the turn.
GO_ON, TURN_OFF = (0.87, 0.2), (0.6, 1.0)
POINTS, STEP_PX = 36, 0.5  # along each vessel: so many, or one every so far

FINE_MM = 0.4  # thinner than this, a vessel may run across a nodule
CLEARANCE_PX = 2.0  # a thicker one that comes nearer meets the nodule
MEETING_SHARE = 0.75  # of those

FEEDERS = 0.8  # vessels that lead to the nodule, on average
FEEDER_RADIUS_MM, FEEDER_LENGTH_MM = (0.3, 0.8), (4, 20)


class _Tubes(NamedTuple):
  """Vessels, n of them, in mm: from the patch's corner and from the slice."""

  start: np.ndarray  # (3, n): row, column, z
  direction: np.ndarray  # (3, n), of length 1
  bend: np.ndarray  # (3, n), of the direction
  length: np.ndarray  # (n,)
  radius: np.ndarray  # (n,)
  is_trunk: np.ndarray  # (n,) bool

  def at(self, t):
    """Place at a share t of the way, a scalar or (..., 1): (..., 3, n)."""
    return self.start + self.length * t * (self.direction + self.bend * t)


def vessels(distance, spacing, rng):
  """Share of vessel in each pixel.

  Args:
    distance: (64, 64) px, positive inside the nodule.
    spacing: mm per px.
    rng: np.random.Generator.

  Returns:
    (64, 64) in [0, 1].
  """
  tree_rng, keep_rng, feeder_rng = rng.spawn(3)
  slab = tree_rng.uniform(*SLAB_MM)
  tubes = _trees(spacing, tree_rng)
  near = _near_slice(tubes, slab, spacing)
  tubes = _Tubes(*(x[..., near] for x in tubes))
  row, col, radius, share = _cut(tubes, slab, spacing)
  nearest = np.where(share > 0, distance[to_index(row), to_index(col)], -np.inf)
  nearest = nearest.max(axis=0) + radius.max(axis=0)
  keep = (nearest < 0) | (tubes.radius < FINE_MM)
  keep &= keep_rng.random(len(keep)) < MEETING_SHARE
  keep |= nearest < -CLEARANCE_PX
  seen = keep & (share > 0)
  cover = stamp(row[seen], col[seen], radius[seen], share[seen])
  return np.maximum(cover, _feeders(distance, slab, spacing, feeder_rng))


def _trees(spacing, rng):
  """All vessels of all trees around the patch."""
  low = np.array([[-AROUND_MM], [-AROUND_MM], [-ABOVE_MM]])
  side = PATCH_SIZE * spacing + AROUND_MM
  high = np.array([[side], [side], [ABOVE_MM]])
  count = rng.poisson(TREES_PER_CM3 * np.prod(high - low) / 1000)
  start = rng.uniform(low, high, (3, count))
  # Vessels of a region come from the same side, the hilum's.
  fan = rng.uniform(0, 2 * np.pi)
  fan = np.array([[math.sin(fan)], [math.cos(fan)], [rng.normal(0, 0.4)]])
  direction = _unit(fan + rng.normal(0, 0.5, (3, count)))
  thin, thick = (r**-TRUNK_POWER for r in TRUNK_MM)
  radius = rng.uniform(thick, thin, count) ** (-1 / TRUNK_POWER)
  shares, turns = zip(GO_ON, TURN_OFF, strict=True)
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


def _near_slice(tubes, slab, spacing):
  """Which tubes (n,) may show in the patch."""
  path = [tubes.at(t) for t in (0.0, 0.5, 1.0)]
  low = np.minimum.reduce(path) - tubes.radius
  high = np.maximum.reduce(path) + tubes.radius
  side = PATCH_SIZE * spacing
  outside = (low > [[side], [side], [slab / 2]]) | (
    high < [[0], [0], [-slab / 2]]
  )
  return ~outside.any(axis=0)


def _cut(tubes, slab, spacing):
  """Row, column, radius (px) and share of points of tubes: (POINTS, n) each."""
  t = np.linspace(0, 1, POINTS)[:, None]
  row, col, z_mm = np.moveaxis(tubes.at(t[:, None]), 1, 0)
  # A trunk swells out of nothing; then every vessel thins down to what goes on.
  swell = np.where(tubes.is_trunk, np.minimum(1, 0.3 + 2 * t), 1)
  radius = tubes.radius * swell * (1 + (GO_ON[0] - 1) * t)
  # How much of the slice's thickness the vessel fills: upright, all of it.
  slant = np.sqrt(1.0001 - tubes.direction[2] ** 2)
  fill = np.minimum(1, 2 * radius / (slab * slant))
  share = fill * _inside(z_mm, radius, slab)
  # A point every so far is enough.
  stride = np.maximum(1, POINTS * STEP_PX * spacing // tubes.length)
  share[np.arange(POINTS)[:, None] % stride > 0] = 0
  return row / spacing, col / spacing, radius / spacing, share


def _inside(z_mm, radius, slab):
  """Share of a vessel's width (or of the slice's) that is in the slice."""
  overlap = slab / 2 + radius - abs(z_mm)
  return np.clip(overlap / np.minimum(slab, 2 * radius), 0, 1)


def _feeders(distance, slab, spacing, rng):
  """Share of the vessels that run into the nodule, (64, 64)."""
  count = rng.poisson(FEEDERS)
  inside = distance > 0
  cover = np.zeros((PATCH_SIZE, PATCH_SIZE))
  if not count or not inside.any():
    return cover
  centre = np.argwhere(inside).mean(axis=0)
  most_mm = math.sqrt(inside.sum() / np.pi) * spacing  # the nodule's radius
  angle = rng.uniform(0, 2 * np.pi, (count, 1))
  length = rng.uniform(*FEEDER_LENGTH_MM, (count, 1)) + most_mm
  radius = np.minimum(rng.uniform(*FEEDER_RADIUS_MM, (count, 1)), most_mm / 2)
  t = np.linspace(0, 1, 2 * POINTS)
  angle = angle + rng.normal(0, 0.5, (count, 1)) * t
  step = length / spacing / len(t)
  row = centre[0] + np.cumsum(np.sin(angle), 1) * step
  col = centre[1] + np.cumsum(np.cos(angle), 1) * step
  # It leaves the slice somewhere.
  z_mm = abs(rng.normal(0, 0.12, (count, 1)) * t * length)
  radius = radius * (1.1 - 0.3 * t)
  fill = np.minimum(1, 2 * radius / slab)
  share = fill * _inside(z_mm, radius, slab)
  points = (x.ravel() for x in (row, col, radius / spacing, share))
  return stamp(*points)


def _unit(vectors):
  """(3, n), of length 1."""
  return vectors / np.sqrt(np.square(vectors).sum(axis=0))


def stamp(row, col, radius, share):
  """Union of soft discs.

  Args:
    row, col, radius: (n,) px.
    share: (n,), each disc's value.

  Returns:
    (64, 64).
  """
  image = np.zeros((PATCH_SIZE, PATCH_SIZE))
  # Most discs are small: those of a size share a window.
  for low, high in ((-1, 1), (1, 2), (2, 4), (4, math.inf)):
    some = (low < radius) & (radius <= high)
    if some.any():
      discs = row[some], col[some], radius[some], share[some]
      np.maximum(image, _stamp(*discs), out=image)
  return image


def _stamp(row, col, radius, share):
  half = math.ceil(radius.max())  # reach of a disc, from its rounded centre
  points = np.stack([row, col, radius, share])
  seen = np.all(
    (points[:2] > -0.5 - half) & (points[:2] < PATCH_SIZE - 0.5 + half), axis=0
  )
  row, col, radius, share = points[:, seen, None]
  window = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, 1, -1)
  rows, cols = np.rint(row) + window[0], np.rint(col) + window[1]
  value = share * np.clip(radius + 0.5 - np.hypot(rows - row, cols - col), 0, 1)
  pad = 2 * half + 1  # room for the discs that stick out
  image = np.zeros((PATCH_SIZE + 2 * pad,) * 2)
  np.maximum.at(
    image, ((rows + pad).astype(int), (cols + pad).astype(int)), value
  )
  return image[pad:-pad, pad:-pad]


def to_index(index):
  """The pixel at a row or column that may lie outside."""
  return np.clip(np.rint(index), 0, PATCH_SIZE - 1).astype(int)
