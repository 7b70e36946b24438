"""Finds the direction of rows and columns of volumes with a turned header.

Readers outlined nodules on the pixels of DICOM images. If the columns of a
volume run to the patient's right and its rows to the front, there are two
possibilities, which the header does not distinguish: the patient lay on the
chest and the pixels are as in the images, or the pixels were turned later. The
nodules decide, as tissue is denser inside their contours than around them. If
only one direction is reversed, the volume is a mirror image, which no scanner
produces, so it is turned back.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from tfds_lidc.ct import index as series_index
from tfds_lidc.ct import metaimage
from tfds_lidc.ct import series as dicom_series
from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches
from tfds_lidc.nodules import selection

_RING_PX = 3


def orient(index: series_index.SeriesIndex) -> series_index.SeriesIndex:
  """Makes the slices of an index be read in the direction the readers saw.

  Args:
    index: the result of `metaimage.load`.

  Returns:
    The index, with other names of slices where they have to be turned.
  """
  clusters: dict[str, list[selection.Nodule]] = {}
  for nodule in selection.clusters():
    clusters.setdefault(nodule.series_uid, []).append(nodule)
  series = {
    uid: _oriented(found, clusters.get(uid, []))
    for uid, found in index.series.items()
  }
  return dataclasses.replace(index, series=series)


def _oriented(
  series: dicom_series.Series, nodules: list[selection.Nodule]
) -> dicom_series.Series:
  path = metaimage.file_of(series.slices[0].path)
  grid, _ = metaimage.read_grid(path)
  if grid is None or not grid.flips:
    return series
  if grid.flips == 'xy':
    contrasts = [_contrast(series, nodule) for nodule in nodules]
    as_stored, turned = np.sum([(0.0, 0.0), *contrasts], axis=0)
    if as_stored >= turned:
      return series
  slices = tuple(
    s._replace(path=metaimage.slice_name(path, s.instance_number, grid.flips))
    for s in series.slices
  )
  return dataclasses.replace(series, slices=slices)


def _contrast(
  series: dicom_series.Series, nodule: selection.Nodule
) -> tuple[float, float]:
  """Computes the HU inside minus the HU around, as stored and turned."""
  placed = patches.place_nodule(nodule, selection.POLICIES['all'])
  if not placed:
    return 0.0, 0.0
  z_mm = annotations.slice_positions(nodule.scan_id)[placed[0].slice_index]
  name = series.path_at(float(z_mm))
  hu, _ = metaimage.try_read_hu(name) if name else (None, None)
  if hu is None:
    return 0.0, 0.0
  mask = placed[0].mask
  ring = ndimage.binary_dilation(mask, iterations=_RING_PX) & ~mask
  found = []
  for plane in (hu, hu[::-1, ::-1]):
    image = patches.cut_image(plane, placed[0])
    found.append(float(image[mask].mean() - image[ring].mean()))
  return found[0], found[1]
