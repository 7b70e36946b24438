"""The choice of example nodules, and the images shown of them."""

import numpy as np
import pytest

from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.reports import examples


@pytest.mark.parametrize(
  'dice, expected',
  [
    ([0.5], [('best', 0)]),
    ([0.1, 0.9], [('best', 1), ('worst', 0)]),
    ([0.3, 0.1, 0.2], [('best', 0), ('median', 2), ('worst', 1)]),
    (
      [0.0, 0.8, 0.1, 0.6, 0.4, 0.9, 0.2],
      [
        ('best', 5),
        ('best', 1),
        ('median', 3),
        ('median', 4),
        ('worst', 2),
        ('worst', 0),
      ],
    ),
    ([1.0, 1.0, 1.0], [('best', 0), ('median', 1), ('worst', 2)]),
  ],
)
def test_choose(dice, expected):
  assert examples.choose(dice) == expected


def test_choose_returns_at_most_two_per_rank():
  assert len(examples.choose(np.linspace(0, 1, 30))) == 6


def test_nodules_are_ranked_by_the_last_mask():
  records = [{'coarse_dice': 0.9, 'fine_dice': 0.1}]
  name, values = examples.order_by(records)
  assert (name, values.tolist()) == ('Dice of the fine mask', [0.1])
  name, values = examples.order_by([{'coarse_dice': 0.9}])
  assert (name, values.tolist()) == ('Dice of the coarse mask', [0.9])


def test_without_masks_nodules_are_ranked_by_the_right_label():
  records = [
    {'malignancy_probability': 0.8, 'label': label} for label in (1, 0, -1)
  ]
  _, values = examples.order_by(records)
  np.testing.assert_allclose(values, [0.8, 0.2, 0.5])


@pytest.fixture
def nodules():
  """Two nodules of 2 x 2 pixels."""
  image = np.arange(2 * 4, dtype=np.int16).reshape(2, 2, 2)
  return nodules_lib.Nodules(
    image=image,
    mask=(image > 5).astype(np.uint8),
    votes=image,
    label=np.array([0, 1]),
    info={},
    simulated=True,
  )


def test_collect_returns_the_chosen_nodules(nodules):
  records = [{'nodule_id': name} for name in 'abc']
  collected = examples.collect(
    [('best', 2), ('worst', 0)], records, nodules, {'fine': nodules.image / 8}
  )
  assert [x.record['nodule_id'] for x in collected] == ['c', 'a']
  np.testing.assert_array_equal(collected[1].image, nodules.image[1])
  assert collected[1].truth.tolist() == [[False, False], [True, True]]
  # `nodules.image / 8` is below 0.5 in the first nodule, but not in the second.
  assert (
    not collected[0].masks['fine'].any() and collected[1].masks['fine'].all()
  )
  assert set(collected[0].masks) == {'fine'} and collected[0].cam is None


def test_pick_pairs_records_with_their_own_images(nodules):
  records = [{'fine_dice': 0.2}, {'fine_dice': 0.7}]
  best, worst = examples.pick(records, nodules, {'fine': nodules.image / 8})
  assert (best.rank, worst.rank) == ('best', 'worst')
  assert (best.record, worst.record) == (records[1], records[0])
  np.testing.assert_array_equal(best.image, nodules.image[1])
  assert best.masks['fine'].all() and not worst.masks['fine'].any()
