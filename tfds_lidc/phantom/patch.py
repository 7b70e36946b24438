"""SIMULATED attenuation for nodules whose contours and ratings are real.

The readers' contours and ratings of LIDC-IDRI (Armato et al., Med. Phys. 38,
915, 2011) are public and small, its CT is 125 GB. Here the contours get an
invented CT: lung, vessels and chest wall whose statistics resemble real scans,
and a nodule that shows what the readers rated. It serves to exercise the whole
path without a download. Nothing measured on it says anything about patients.

    python -m tfds_lidc.phantom --write_dicom=DIR --patients=LIDC-IDRI-0001,...

writes whole SIMULATED series, see `series`.

Two rules keep it honest. The background knows the contours (a wall must not
cover the nodule) but no rating, and the nodule knows every rating except
malignancy, so that the label reaches the image only as far as the other
ratings and the outline tell it.
"""

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

HU_RANGE = (-1024, 3071)  # 12-bit CT
SMOOTH_CONTOUR_PX = 0.6  # takes the pixel corners off the outline
FAR_PX = 20.0  # distances are cut here: no edge reaches farther


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
  distance = np.stack([_signed_distance(mask) for mask in masks])
  rank = -(-2 * len(masks) // 3)
  distance = np.sort(distance, axis=0)[len(masks) - rank]
  return ndimage.gaussian_filter(distance, SMOOTH_CONTOUR_PX, truncate=3)


def _signed_distance(mask):
  """Distance to the outline, px, cut at FAR_PX; positive inside."""
  if mask.all() or not mask.any():  # also a reader without contour
    return np.where(mask, FAR_PX, -FAR_PX)
  inside = ndimage.distance_transform_edt(mask)
  outside = ndimage.distance_transform_edt(~mask)
  distance = np.where(mask, inside - 0.5, 0.5 - outside)
  return np.clip(distance, -FAR_PX, FAR_PX)


def simulate_patch(
  reader_masks,
  ratings,
  *,
  pixel_spacing_mm,
  rng,
  surroundings=None,
  noise_rng=None,
):
  """Draws one SIMULATED CT patch around a nodule.

  Args:
    reader_masks: (num_readers, 64, 64) bool, the contours on one slice.
    ratings: dict, the readers' mean of each of `RATINGS_SHOWN` on the LIDC
      scales (subtlety, margin, lobulation, spiculation, texture 1 to 5,
      calcification 1 to 6); further entries are not looked at.
    pixel_spacing_mm: float, in the plane.
    rng: np.random.Generator. The background does not depend on the
      ratings.
    surroundings: (reader_masks, shift) of the patch whose lung, vessels and
      wall this one has, as far as they reach, and by how many rows and columns
      they lie elsewhere here; None for its own.
    noise_rng: of the scanner's noise, where it is another than `rng`.

  Returns:
    (64, 64) int16, HU.

  Raises:
    ValueError: the masks have another shape.
    KeyError: a rating is missing.
  """
  size = patches.PATCH_SIZE
  if np.shape(reader_masks)[1:] != (size, size):
    raise ValueError(
      f'reader_masks has shape {np.shape(reader_masks)}, wanted '
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
  """The SIMULATED attenuation of a nodule, the same on every machine and call.

  Args:
    nodule: its ratings and pixel spacing are used.
    patch: its reader masks are used.
    each_slice: whether each slice of the nodule is drawn for itself.
    beside: another patch of the nodule, whose surroundings and scanner this one
      has, with noise of its own; None for a draw that stands alone.

  Returns:
    (64, 64) int16, HU.
  """
  name = nodule.nodule_id
  own_name = f'{name}_{patch.slice_index}'
  others = {}
  if beside is not None:
    shift = beside.row - patch.row, beside.col - patch.col
    others['surroundings'] = beside.reader_masks, shift
    others['noise_rng'] = generator(own_name)
  return simulate_patch(
    patch.reader_masks,
    {name: float(np.mean(r)) for name, r in nodule.ratings.items()},
    pixel_spacing_mm=nodule.pixel_spacing_mm * patch.scale,
    rng=generator(own_name if each_slice else name),
    **others,
  )


def generator(name: str) -> np.random.Generator:
  """A generator whose seed is a name, on every machine."""
  # Not `hash`, which differs from process to process.
  seed = hashlib.sha256(name.encode()).digest()
  return np.random.default_rng(int.from_bytes(seed, 'big'))
