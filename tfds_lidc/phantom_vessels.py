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
TREES_PER_CM3 = 4.0
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
MEETING_SHARE = 0.5  # of those

FEEDERS = 0.5  # vessels that lead to the nodule, on average
FEEDER_RADIUS_MM, FEEDER_LENGTH_MM = (0.3, 0.8), (4, 20)


class _Tubes(NamedTuple):
  """Vessels, n of them, in mm: from the patch's corner and from the slice."""

  start: np.ndarray  # (n, 3)
  direction: np.ndarray  # (n, 3), of length 1
  bend: np.ndarray  # (n, 3), of the direction
  length: np.ndarray  # (n, 1)
  radius: np.ndarray  # (n, 1)
  is_trunk: np.ndarray  # (n, 1) bool

  def at(self, t):
    """Places at t (points, 1) of the way: (n, points, 3)."""
    path = self.direction[:, None] * t + self.bend[:, None] * t * t
    return self.start[:, None] + self.length[:, None] * path


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
  tubes = _Tubes(*(x[near] for x in tubes))
  row, col, radius, share = _cut(tubes, slab, spacing)
  nearest = np.where(share > 0, distance[to_index(row), to_index(col)], -np.inf)
  nearest = nearest.max(axis=1) + radius.max(axis=1)
  keep = (nearest < 0) | (tubes.radius[:, 0] < FINE_MM)
  keep &= keep_rng.random(len(keep)) < MEETING_SHARE
  keep |= nearest < -CLEARANCE_PX
  seen = keep[:, None] & (share > 0)
  cover = stamp(row[seen], col[seen], radius[seen], share[seen])
  return np.maximum(cover, _feeders(distance, slab, spacing, feeder_rng))


def _trees(spacing, rng):
  """All vessels of all trees around the patch."""
  side, height = PATCH_SIZE * spacing + 2 * AROUND_MM, 2 * ABOVE_MM
  count = rng.poisson(TREES_PER_CM3 * side**2 * height / 1000)
  start = rng.uniform(0, 1, (count, 3)) * (side, side, height)
  start -= AROUND_MM, AROUND_MM, ABOVE_MM
  # Vessels of a region come from the same side, the hilum's.
  fan = rng.uniform(0, 2 * np.pi)
  fan = np.array([math.sin(fan), math.cos(fan), rng.normal(0, 0.4)])
  direction = _unit(fan + rng.normal(0, 0.5, (count, 3)))
  thin, thick = (r**-TRUNK_POWER for r in TRUNK_MM)
  radius = rng.uniform(thick, thin, (count, 1)) ** (-1 / TRUNK_POWER)
  generations = []
  for _ in range(GENERATIONS):
    visible = radius[:, 0] > FINEST_MM
    start, direction = start[visible], direction[visible]
    radius = radius[visible]
    length = radius * rng.uniform(*LENGTH_PER_RADIUS, radius.shape)
    bend = rng.normal(0, 0.25, direction.shape)
    tubes = _Tubes(start, direction, bend, length, radius, radius > 0)
    if generations:
      tubes.is_trunk[:] = False
    generations.append(tubes)
    start = np.tile(tubes.at(1.0)[:, 0], (2, 1))
    shares, turns = zip(GO_ON, TURN_OFF, strict=True)
    turn = np.repeat(turns, len(radius))[:, None]
    onward = np.tile(_unit(direction + 2 * bend), (2, 1))
    direction = _unit(onward + turn * _unit(rng.normal(size=onward.shape)))
    radius = np.repeat(shares, len(radius))[:, None] * np.tile(radius, (2, 1))
    radius = radius * rng.uniform(0.85, 1.1, radius.shape)
  return _Tubes(*(np.concatenate(x) for x in zip(*generations, strict=True)))


def _near_slice(tubes, slab, spacing):
  """Which tubes (n,) may show in the patch."""
  path = tubes.at(np.array([[0.0], [0.5], [1.0]]))
  low, high = path.min(axis=1) - tubes.radius, path.max(axis=1) + tubes.radius
  side = PATCH_SIZE * spacing
  near = (low < (side, side, slab / 2)) & (high > (0, 0, -slab / 2))
  return near.all(axis=1)


def _cut(tubes, slab, spacing):
  """Row, column, radius (px) and share of points of tubes: (n, POINTS) each."""
  t = np.linspace(0, 1, POINTS)
  path = tubes.at(t[:, None])
  # A trunk swells out of nothing; then every vessel thins down to what goes on.
  swell = np.where(tubes.is_trunk, np.minimum(1, 0.3 + 2 * t), 1)
  radius = tubes.radius * swell * (1 + (GO_ON[0] - 1) * t)
  # How much of the slice's thickness the vessel fills: upright, all of it.
  slant = np.sqrt(1.0001 - tubes.direction[:, 2:] ** 2)
  fill = np.minimum(1, 2 * radius / (slab * slant))
  share = fill * _inside(path[..., 2], radius, slab)
  # A point every so far is enough.
  stride = np.maximum(1, POINTS * STEP_PX * spacing // tubes.length)
  share[np.arange(POINTS) % stride > 0] = 0
  row, col = np.moveaxis(path[..., :2] / spacing, -1, 0)
  return row, col, radius / spacing, share


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
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


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
