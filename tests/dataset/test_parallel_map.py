"""`ordered_map` keeps the order, and a crash loses only one item."""

import os
import subprocess
import sys
import time

import pytest

from tfds_lidc import parallel


def _slow_first(item):
  time.sleep(0.3 if item == 0 else 0)
  return item * item


def _crash_at_3(item):
  if item == 3:
    os._exit(1)  # ends the process like a segmentation fault in a codec
  return item


def _raise(item):
  raise ValueError(item)


@pytest.mark.parametrize('workers', [1, 2])
def test_results_are_in_order(workers):
  results = parallel.ordered_map(
    _slow_first, range(9), workers=workers, on_crash=None
  )
  assert list(results) == [i * i for i in range(9)]


def test_crash_loses_one_item():
  results = parallel.ordered_map(
    _crash_at_3, range(6), workers=2, on_crash=lambda item: f'lost {item}'
  )
  assert list(results) == [0, 1, 2, 'lost 3', 4, 5]


def test_exception_is_raised_in_the_caller():
  with pytest.raises(ValueError, match='0'):
    list(parallel.ordered_map(_raise, [0], workers=2, on_crash=None))


def test_separate_process_recovers_from_a_crash():
  separate = parallel.SeparateProcess(
    _crash_at_3, on_crash=lambda item: f'lost {item}'
  )
  assert [separate(item) for item in (2, 3, 4)] == [2, 'lost 3', 4]
  separate.close()


def _print_pid_and_sleep(_):
  os.write(1, b'%d\n' % os.getpid())  # one write, so that lines do not mix
  time.sleep(60)


def _is_alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def test_workers_end_when_their_parent_is_killed():
  code = (
    'import test_parallel_map as t\n'
    'from tfds_lidc import parallel\n'
    'list(parallel.ordered_map('
    't._print_pid_and_sleep, [0, 1], workers=2, on_crash=None))\n'
  )
  parent = subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  with parent:
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
  deadline = time.monotonic() + 20
  while any(map(_is_alive, pids)) and time.monotonic() < deadline:
    time.sleep(0.1)
  alive = [pid for pid in pids if _is_alive(pid)]
  for pid in alive:
    os.kill(pid, 9)
  assert not alive
