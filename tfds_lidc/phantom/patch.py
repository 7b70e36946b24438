"""Simulates the attenuation of nodules whose contours and ratings are real.

The readers' contours and ratings of LIDC-IDRI (Armato et al., Med. Phys. 38,
915, 2011) are public and small, but its CT has 125 GB. This package invents CT
for the contours: lung, vessels and chest wall with statistics like those of
real scans, and a nodule that shows what the readers rated. Its purpose is to
run the whole pipeline without a download. Results on phantoms say nothing about
patients.

    python -m tfds_lidc.phantom --write_dicom=DIR --patients=LIDC-IDRI-0001,...

writes whole SIMULATED series, see `series`.

Two rules avoid a leak of the label. The background depends on the contours (a
wall must not cover the nodule) but on no rating, and the nodule depends on
every rating except malignancy. The label therefore only reaches the image
through the contour and the other ratings.
"""

from collections.abc import Mapping
import hashlib

import numpy as np
from scipy import ndimage

from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection
from tfds_lidc.phantom import lung
from tfds_lidc.phantom import nodule as phantom_nodule
from tfds_lidc.phantom import scanner

DESCRIPTION = (
  'SIMULATED: real LIDC-IDRI contours and ratings, invented attenuation.'
  ' Not CT, and not evidence about any patient.'
)

# The ratings that shape the image: neither malignancy, which is the label, nor
# sphericity, which is part of the contour already.
RATINGS_SHOWN = (
  'subtlety',
  'calcification',
  'margin',
  'lobulation',
  'spiculation',
  'texture',
)

# Reader masks of a patch, and the shift of their surroundings in rows and cols.
Surroundings = tuple[np.ndarray, tuple[int, int]]

HU_RANGE = (-1024, 3071)  # 12-bit CT
SMOOTH_CONTOUR_PX = 0.6  # rounds the corners of pixels in the contour
FAR_PX = 20.0  # distances are clipped here, as no edge is wider


def consensus_distance(reader_masks: np.ndarray) -> np.ndarray:
  """Computes the smoothed signed distance to the two-thirds consensus contour.

  A pixel is in the consensus if k = ceil(2n/3) of n readers agree. The k-th
  largest of the readers' signed distances is zero exactly on that contour, and
  it is continuous, unlike the number of votes.

  Args:
    reader_masks: (num_readers, 64, 64) bool.

  Returns:
    (64, 64) float, px, positive inside.
  """
  masks = np.asarray(reader_masks, bool)
  distance = np.stack([_signed_distance(mask) for mask in masks])
  rank = -(-2 * len(masks) // 3)
  distance = np.sort(distance, axis=0)[len(masks) - rank]
  return ndimage.gaussian_filter(distance, SMOOTH_CONTOUR_PX, truncate=3)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
  """Computes the distance to the contour, clipped at FAR_PX; positive inside.

  Args:
    mask: (64, 64) bool.

  Returns:
    (64, 64) float, px.
  """
  if mask.all() or not mask.any():  # such as a reader without a contour here
    return np.where(mask, FAR_PX, -FAR_PX)
  inside = ndimage.distance_transform_edt(mask)
  outside = ndimage.distance_transform_edt(~mask)
  distance = np.where(mask, inside - 0.5, 0.5 - outside)
  return np.clip(distance, -FAR_PX, FAR_PX)


def simulate_patch(
  reader_masks: np.ndarray,
  ratings: Mapping[str, float],
  *,
  pixel_spacing_mm: float,
  rng: np.random.Generator,
  surroundings: Surroundings | None = None,
  noise_rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Draws one SIMULATED CT patch around a nodule.

  Args:
    reader_masks: (num_readers, 64, 64) bool, the contours on one slice.
    ratings: the readers' mean of each of `RATINGS_SHOWN` on the LIDC scales
      (subtlety, margin, lobulation, spiculation, texture 1 to 5, calcification
      1 to 6); other entries are ignored.
    pixel_spacing_mm: in the plane.
    rng: source of randomness. The background does not depend on the ratings.
    surroundings: reader masks of another patch whose lung, vessels and wall
      this patch shares, and their shift in rows and columns; None for
      surroundings of its own.
    noise_rng: source of the scanner's noise; None for `rng`.

  Returns:
    (64, 64) int16, HU.

  Raises:
    ValueError: the masks have another shape.
    KeyError: a rating is missing.
  """
  size = patches.PATCH_SIZE
  if np.shape(reader_masks)[1:] != (size, size):
    raise ValueError(
      f'reader_masks has shape {np.shape(reader_masks)}, expected '
      f'(num_readers, {size}, {size})'
    )
  shown = {name: float(ratings[name]) for name in RATINGS_SHOWN}
  background_rng, nodule_rng, scanner_rng = rng.spawn(3)
  distance = consensus_distance(reader_masks)
  if surroundings is None:
    hu = lung.background(distance, pixel_spacing_mm, background_rng)
  else:
    others, shift = surroundings
    around = consensus_distance(others)
    hu = lung.background(around, pixel_spacing_mm, background_rng)
    hu = ndimage.shift(hu, shift, order=0, mode='nearest')
  hu = phantom_nodule.add_nodule(
    hu, distance, shown, pixel_spacing_mm, nodule_rng
  )
  hu = scanner.draw(scanner_rng).image(hu, noise_rng or scanner_rng)
  return np.rint(np.clip(hu, *HU_RANGE)).astype(np.int16)


def simulate(
  nodule: selection.Nodule,
  patch: patches.Patch,
  each_slice: bool = False,
  beside: patches.Patch | None = None,
) -> np.ndarray:
  """Simulates the attenuation of a nodule, the same on every machine and call.

  Args:
    nodule: the nodule; its ratings and pixel spacing are used.
    patch: the patch; its reader masks are used.
    each_slice: whether each slice of the nodule has its own random draw.
    beside: another patch of the nodule, whose surroundings and scanner this
      patch shares, with its own noise; None for independent surroundings.

  Returns:
    (64, 64) int16, HU.
  """
  name = nodule.nodule_id
  own_name = f'{name}_{patch.slice_index}'
  surroundings, noise_rng = None, None
  if beside is not None:
    shift = beside.row - patch.row, beside.col - patch.col
    surroundings = beside.reader_masks, shift
    noise_rng = generator(own_name)
  return simulate_patch(
    patch.reader_masks,
    {name: float(np.mean(r)) for name, r in nodule.ratings.items()},
    pixel_spacing_mm=nodule.pixel_spacing_mm * patch.scale,
    rng=generator(own_name if each_slice else name),
    surroundings=surroundings,
    noise_rng=noise_rng,
  )


def generator(name: str) -> np.random.Generator:
  """Creates a generator seeded by a name, the same on every machine."""
  # Not by `hash`, which differs between processes.
  seed = hashlib.sha256(name.encode()).digest()
  return np.random.default_rng(int.from_bytes(seed, 'big'))
