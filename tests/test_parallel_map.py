"""Results come in order, and a crash costs one item."""

import os
import time

import pytest

from tfds_lidc import parallel


def _slow_first(item):
  time.sleep(0.3 if item == 0 else 0)
  return item * item


def _crash_at_3(item):
  if item == 3:
    os._exit(1)  # as a codec's segmentation fault
  return item


def _raise(item):
  raise ValueError(item)


@pytest.mark.parametrize('workers', [1, 2])
def test_results_are_in_order(workers):
  found = parallel.ordered_map(
    _slow_first, range(9), workers=workers, on_crash=None
  )
  assert list(found) == [i * i for i in range(9)]


def test_a_crash_costs_one_item():
  found = parallel.ordered_map(
    _crash_at_3, range(6), workers=2, on_crash=lambda item: f'lost {item}'
  )
  assert list(found) == [0, 1, 2, 'lost 3', 4, 5]


def test_an_exception_is_raised():
  with pytest.raises(ValueError, match='0'):
    list(parallel.ordered_map(_raise, [0], workers=2, on_crash=None))
