"""A map over processes: in order, bounded in memory, not ended by a crash."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import process
import contextlib
import multiprocessing
import os
import signal
import threading
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
      with contextlib.closing(
        SeparateProcess(function, on_crash=on_crash, tries=1)
      ) as separate:
        yield separate(todo.popleft())


class SeparateProcess:
  """Calls a function in another process, so that a crash is not the caller's.

  The process is started at the first call, and kept until `close`.

  Args:
    function: as of `ordered_map`.
    on_crash: what to return for an item that killed its process.
    tries: after how many processes an item is given up.
  """

  def __init__(
    self,
    function: Callable[[Any], Any],
    *,
    on_crash: Callable[[Any], Any],
    tries: int = 2,
  ):
    self._function = function
    self._on_crash = on_crash
    self._tries = tries
    self._process = None

  def __call__(self, item: Any) -> Any:
    """`function(item)`, or `on_crash(item)`."""
    for _ in range(self._tries):
      self._process = self._process or _pool(1)
      try:
        return self._process.submit(self._function, item).result()
      except process.BrokenProcessPool:
        self._process = None
    return self._on_crash(item)

  def close(self) -> None:
    if self._process:
      self._process.shutdown()


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


def _pool(workers: int) -> futures.ProcessPoolExecutor:
  # Spawned: a fork would copy the locks that threads of JAX or NumPy hold.
  return futures.ProcessPoolExecutor(
    workers,
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_follow_parent,
  )


def _follow_parent() -> None:
  """Leaves the parent to decide what an interrupt means, and ends with it."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)  # it was killed: nobody waits for a result
