"""Slice, centre, votes and consensus of a patch; expected values by hand."""

import numpy as np
import pytest

from tfds_lidc.nodules import annotations
from tfds_lidc.nodules import patches


def _readers(*masks, origin=(0, 0, 0)):
  return annotations.ReaderMasks(np.array(masks, bool), origin)


def test_consensus_is_exact_at_two_thirds():
  votes = np.arange(7, dtype=np.uint8)
  # In floating point, the mean of three votes may be below 2/3.
  for num_readers, min_votes in ((1, 1), (2, 2), (3, 2), (4, 3), (6, 4)):
    np.testing.assert_array_equal(
      patches.consensus_mask(votes, num_readers, (2, 3)), votes >= min_votes
    )
  for num_readers, min_votes in ((1, 1), (2, 1), (3, 2), (4, 2)):
    np.testing.assert_array_equal(
      patches.consensus_mask(votes, num_readers, (1, 2)), votes >= min_votes
    )


def test_patch_inside_the_slice():
  plane = np.arange(100 * 100, dtype=np.int16).reshape(100, 100)
  patch = patches.cut(plane, 50, 40, fill=-1024)
  np.testing.assert_array_equal(patch, plane[18:82, 8:72])
  assert patch[32, 32] == plane[50, 40]
  assert patch.dtype == np.int16


@pytest.mark.parametrize('row, col', [(5, 97), (-40, 50), (99, 0), (140, 50)])
def test_patch_is_filled_outside_the_slice(row, col):
  plane = np.arange(1, 100 * 100 + 1, dtype=np.int16).reshape(100, 100)
  patch = patches.cut(plane, row, col, fill=-1024)
  for i in range(64):
    for j in range(64):
      r, c = row - 32 + i, col - 32 + j
      inside = 0 <= r < 100 and 0 <= c < 100
      assert patch[i, j] == (plane[r, c] if inside else -1024)


def test_slice_of_the_largest_consensus_is_chosen_not_of_the_largest_union():
  masks = np.zeros((2, 3, 9, 9), bool)
  masks[0, 0, 0:9, 0:4] = True  # 72 pixels are marked, none by both readers
  masks[1, 0, 0:9, 5:9] = True
  masks[:, 1, 0:2, 0:2] = True  # 4 pixels by both
  masks[:, 2, 0:3, 0:1] = True  # 3 pixels by both
  patch = patches.place(_readers(*masks, origin=(10, 0, 0)), (2, 3))
  assert patch.slice_index == 11
  assert patch.mask.sum() == 4


def test_lowest_slice_of_equal_areas_is_chosen():
  masks = np.zeros((1, 3, 4, 4), bool)
  masks[0, 1:, :2, :2] = True
  assert (
    patches.place(_readers(*masks, origin=(7, 0, 0)), (1, 2)).slice_index == 8
  )


def test_centre_is_the_centroid_of_any_vote():
  masks = np.zeros((2, 1, 9, 9), bool)
  masks[:, 0, 0:2, 0:2] = True  # consensus: rows 100-101, columns 200-201
  masks[1, 0, 0:2, 2:8] = True  # one reader also marks columns up to 207
  patch = patches.place(_readers(*masks, origin=(0, 100, 200)), (2, 3))
  # Both are rounded to even: row 100.5 to 100, column (200 + 207) / 2 to 204.
  assert (patch.row, patch.col) == (100, 204)
  expected = np.zeros((64, 64), np.uint8)
  expected[32:34, 28:30] = 2
  expected[32:34, 30:36] = 1
  np.testing.assert_array_equal(patch.votes, expected)
  np.testing.assert_array_equal(patch.mask, expected == 2)
  np.testing.assert_array_equal(patch.reader_masks.sum(axis=0), expected)
  assert patch.reader_masks.shape == (2, 64, 64)
  assert patch.votes.dtype == np.uint8 and patch.mask.dtype == bool


def test_nodule_without_consensus_has_no_patch():
  masks = np.zeros((2, 1, 4, 4), bool)
  masks[0, 0, 0, 0] = masks[1, 0, 3, 3] = True
  assert patches.place(_readers(*masks), (2, 3)) is None
  assert patches.place(_readers(*masks), (1, 2)).mask.sum() == 2


def test_place_all_gives_every_slice_with_a_consensus():
  masks = np.zeros((2, 4, 9, 9), bool)
  masks[:, 0, 0:2, 0:2] = True
  masks[0, 1, 0:2, 0:2] = True  # one reader only
  masks[:, 3, 4:6, 6:8] = True
  readers = _readers(*masks, origin=(10, 20, 30))
  placed = patches.place_all(readers, (2, 3))
  assert [p.slice_index for p in placed] == [10, 13]
  # Each patch has its own centroid: (20.5, 30.5) and (24.5, 36.5), to even.
  assert [(p.row, p.col) for p in placed] == [(20, 30), (24, 36)]
  assert [p.slice_index for p in patches.place_all(readers, (1, 2))] == [
    10,
    11,
    13,
  ]


@pytest.mark.parametrize('scale', [0.5, 0.77, 1.0, 1.3, 2.0])
def test_resampling_keeps_the_centre_and_a_ramp(scale):
  rows, cols = np.mgrid[:300, :300]
  plane = (3 * rows - 2 * cols).astype(np.int16)
  mask = np.zeros((64, 64), bool)
  patch = patches.Patch(0, 150, 140, mask[None], mask, mask, scale)
  image = patches.cut_image(plane, patch)
  assert image.shape == (64, 64) and image.dtype == np.int16
  i = np.arange(64) - 32
  exact = 3 * (150 + i[:, None] * scale) - 2 * (140 + i * scale)
  # The error is rounding; for 1.3, averaging is not quite symmetric either.
  assert np.abs(image - exact).max() <= (0.75 if scale == 1.3 else 0.51)


def test_resampled_patch_is_filled_outside_the_slice():
  plane = np.full((100, 100), 50, np.int16)
  mask = np.zeros((64, 64), bool)
  patch = patches.Patch(0, 0, 50, mask[None], mask, mask, 0.5)
  image = patches.cut_image(plane, patch)
  assert (image[:31] == -1024).all() and (image[32:] == 50).all()


def test_masks_are_resampled_reader_by_reader():
  masks = np.zeros((2, 1, 40, 40), bool)
  masks[0, 0, 10:30, 10:30] = True  # 20 px wide, so 40 px at half the spacing
  masks[1, 0, 10:30, 10:20] = True
  patch = patches.place(_readers(*masks), (1, 2), scale=0.5)
  assert patch.reader_masks.shape == (2, 64, 64)
  for mask, width in zip(patch.reader_masks, (40, 20), strict=True):
    # Resampling may round half a pixel at each edge up or down.
    assert abs(mask.any(axis=0).sum() - width) <= 1
  np.testing.assert_array_equal(patch.votes, patch.reader_masks.sum(axis=0))
