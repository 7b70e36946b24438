"""A map over processes: in order, bounded in memory, not ended by a crash."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import process
import multiprocessing
import os
import signal
from typing import Any


def all_cores() -> int:
  """How many processes may run at once on this machine."""
  if hasattr(os, 'sched_getaffinity'):  # what a container or a job was given
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def ordered_map(
  function: Callable[[Any], Any],
  items: Sequence[Any],
  *,
  workers: int,
  on_crash: Callable[[Any], Any],
) -> Iterator[Any]:
  """Yields `function(item)` in the order of the items.

  At most two results per worker are held beside the one yielded. An item that
  kills its process (a codec in C may, on damaged data) is tried once more
  alone, and then given up.

  Args:
    function: of one item; importable by name, as processes are spawned.
    items: each picklable.
    workers: processes; with 1, everything happens in this one.
    on_crash: what to yield for an item that killed its process.
  """
  if workers <= 1:
    yield from map(function, items)
    return
  todo = collections.deque(items)
  while todo:
    try:
      for result in _pooled(function, list(todo), workers):
        todo.popleft()
        yield result
    except process.BrokenProcessPool:
      yield _alone(function, todo.popleft(), on_crash)


def _pooled(
  function: Callable[[Any], Any], items: list[Any], workers: int
) -> Iterator[Any]:
  pool = _pool(min(workers, len(items)))
  pending = collections.deque()
  try:
    for item in items:
      pending.append(pool.submit(function, item))
      if len(pending) > 2 * workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


def _alone(
  function: Callable[[Any], Any],
  item: Any,
  on_crash: Callable[[Any], Any],
) -> Any:
  with _pool(1) as pool:
    try:
      return pool.submit(function, item).result()
    except process.BrokenProcessPool:
      return on_crash(item)


def _pool(workers: int) -> futures.ProcessPoolExecutor:
  # Spawned: a fork would copy the locks that threads of JAX or NumPy hold.
  return futures.ProcessPoolExecutor(
    workers,
    mp_context=multiprocessing.get_context('spawn'),
    initializer=signal.signal,
    # The parent decides what an interrupt means.
    initargs=(signal.SIGINT, signal.SIG_IGN),
  )
