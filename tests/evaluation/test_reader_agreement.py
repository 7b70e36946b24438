"""Masks of single readers match the records; Dice values by hand."""

import dataclasses

import numpy as np
import pytest

from mtnet_jax.data import lidc
from mtnet_jax.data import readers as readers_lib
from mtnet_jax.evaluation import reader_agreement

# Rows of a 4 x 4 plane that three readers marked.
READERS = np.zeros((3, 4, 4), bool)
READERS[0, :2] = READERS[1, :1] = READERS[2, 2:] = True


@pytest.fixture(scope='module', name='nodules')
def _nodules(phantom_data_dir):
  return lidc.load_split(
    'lidc_nodules/phantom', 'test', data_dir=phantom_data_dir, limit=24
  )


def test_masks_are_those_of_which_the_record_was_made(nodules):
  masks = readers_lib.masks(nodules)
  assert len(masks) == 24
  for i, readers in enumerate(masks):
    assert readers.shape == (nodules.info['num_readers'][i], 64, 64)
    np.testing.assert_array_equal(readers.sum(0), nodules.votes[i])
    # The consensus of the config phantom: two thirds of the readers.
    np.testing.assert_array_equal(
      3 * readers.sum(0) >= 2 * len(readers), nodules.mask[i] > 0
    )


def test_changed_votes_and_unknown_nodules_have_no_masks(nodules):
  votes = nodules.votes[:3].copy()
  votes[0, 0, 0] += 1
  info = {key: values[:3].copy() for key, values in nodules.info.items()}
  info['nodule_id'] = np.array(
    [info['nodule_id'][0], 'somebody_else_1', info['nodule_id'][2]]
  )
  changed = dataclasses.replace(nodules.take(slice(3)), votes=votes, info=info)
  first, second, third = readers_lib.masks(changed)
  assert first is None and second is None
  assert third is not None


def test_pairwise_dice_by_hand():
  # 8, 4 and 8 pixels; the first two share 4, the third shares none.
  expected = (2 * 4 / 12 + 0 + 0) / 3
  assert reader_agreement.pairwise_dice(READERS) == pytest.approx(expected)


def test_dice_with_readers_by_hand():
  # The mask is the second reader's: its Dice values are 8 / 12, 1 and 0.
  value = reader_agreement.dice_with_readers(READERS[1], READERS)
  assert value == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_readers_who_both_marked_nothing_agree():
  nothing = np.zeros((2, 4, 4), bool)
  assert reader_agreement.pairwise_dice(nothing) == 1
  assert reader_agreement.dice_with_readers(READERS[0], nothing) == 0


@pytest.mark.parametrize('readers', (None, READERS[:1]))
def test_fewer_than_two_readers_have_no_agreement(readers):
  assert np.isnan(reader_agreement.pairwise_dice(readers))
  assert np.isnan(reader_agreement.dice_with_readers(READERS[0], readers))


def test_columns(nodules):
  few = nodules.take(slice(4))
  columns = reader_agreement.columns(few, {'fine': few.mask > 0})
  assert set(columns) == {
    'reader_dice',
    'consensus_reader_dice',
    'fine_reader_dice',
  }
  readers = readers_lib.masks(few)[2]
  assert columns['reader_dice'][2] == reader_agreement.pairwise_dice(readers)
  np.testing.assert_array_equal(
    columns['fine_reader_dice'], columns['consensus_reader_dice']
  )
