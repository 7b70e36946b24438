"""Slice, centre, votes and consensus of a patch, derived by hand."""

import numpy as np
import pytest

from tfds_lidc import annotations
from tfds_lidc import patches


def _readers(*masks, origin=(0, 0, 0)):
  return annotations.ReaderMasks(np.array(masks, bool), origin)


def test_consensus_is_exact_at_two_thirds():
  votes = np.arange(7, dtype=np.uint8)
  # In floating point 2/3 > 0.66666 and a mean of 3 readers may fall short.
  for num_readers, least in ((1, 1), (2, 2), (3, 2), (4, 3), (6, 4)):
    np.testing.assert_array_equal(
      patches.consensus_mask(votes, num_readers, (2, 3)), votes >= least
    )
  for num_readers, least in ((1, 1), (2, 1), (3, 2), (4, 2)):
    np.testing.assert_array_equal(
      patches.consensus_mask(votes, num_readers, (1, 2)), votes >= least
    )


def test_cut_inside():
  plane = np.arange(100 * 100, dtype=np.int16).reshape(100, 100)
  patch = patches.cut(plane, 50, 40, fill=-1024)
  np.testing.assert_array_equal(patch, plane[18:82, 8:72])
  assert patch[32, 32] == plane[50, 40]
  assert patch.dtype == np.int16


@pytest.mark.parametrize('row, col', [(5, 97), (-40, 50), (99, 0), (140, 50)])
def test_cut_leaving_the_plane(row, col):
  plane = np.arange(1, 100 * 100 + 1, dtype=np.int16).reshape(100, 100)
  patch = patches.cut(plane, row, col, fill=-1024)
  for i in range(64):
    for j in range(64):
      r, c = row - 32 + i, col - 32 + j
      inside = 0 <= r < 100 and 0 <= c < 100
      assert patch[i, j] == (plane[r, c] if inside else -1024)


def test_largest_consensus_wins_over_largest_union():
  masks = np.zeros((2, 3, 9, 9), bool)
  masks[0, 0, 0:9, 0:4] = True  # 72 pixels marked, no pixel twice
  masks[1, 0, 0:9, 5:9] = True
  masks[:, 1, 0:2, 0:2] = True  # 4 pixels twice
  masks[:, 2, 0:3, 0:1] = True  # 3 pixels twice
  patch = patches.place(_readers(*masks, origin=(10, 0, 0)), (2, 3))
  assert patch.slice_index == 11
  assert patch.mask.sum() == 4


def test_equal_areas_take_the_lowest_slice():
  masks = np.zeros((1, 3, 4, 4), bool)
  masks[0, 1:, :2, :2] = True
  assert (
    patches.place(_readers(*masks, origin=(7, 0, 0)), (1, 2)).slice_index == 8
  )


def test_centre_is_the_centroid_of_any_vote():
  masks = np.zeros((2, 1, 9, 9), bool)
  masks[:, 0, 0:2, 0:2] = True  # the consensus, rows 100-101, columns 200-201
  masks[1, 0, 0:2, 2:8] = True  # one reader more: columns up to 207
  patch = patches.place(_readers(*masks, origin=(0, 100, 200)), (2, 3))
  # Row 100.5 rounds to the even 100; column (200 + 207) / 2 = 203.5 to 204.
  assert (patch.row, patch.col) == (100, 204)
  expected = np.zeros((64, 64), np.uint8)
  expected[32:34, 28:30] = 2
  expected[32:34, 30:36] = 1
  np.testing.assert_array_equal(patch.votes, expected)
  np.testing.assert_array_equal(patch.mask, expected == 2)
  np.testing.assert_array_equal(patch.reader_masks.sum(axis=0), expected)
  assert patch.reader_masks.shape == (2, 64, 64)
  assert patch.votes.dtype == np.uint8 and patch.mask.dtype == bool


def test_no_consensus_no_patch():
  masks = np.zeros((2, 1, 4, 4), bool)
  masks[0, 0, 0, 0] = masks[1, 0, 3, 3] = True
  assert patches.place(_readers(*masks), (2, 3)) is None
  assert patches.place(_readers(*masks), (1, 2)).mask.sum() == 2
