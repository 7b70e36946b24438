"""Maps a function over items in processes, and survives a crash of one.

Results come in the order of the items, and memory is bounded.
"""

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
from typing import Generic
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def all_cores() -> int:
  """Returns how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # respects containers and batch jobs
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def ordered_map(
  function: Callable[[Item], Result],
  items: Sequence[Item],
  *,
  workers: int,
  on_crash: Callable[[Item], Result],
) -> Iterator[Result]:
  """Yields `function(item)` in the order of the items.

  At most two results per worker wait to be yielded. An item that crashes its
  process (a C codec may, on damaged data) is tried once more in a process of
  its own; if that one crashes, too, `on_crash(item)` is yielded.

  Args:
    function: takes one item; importable by name, since processes are spawned.
    items: picklable items.
    workers: number of processes; with 1, this process does all the work.
    on_crash: called with an item that crashed its process; its value is
      yielded.
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


class SeparateProcess(Generic[Item, Result]):
  """Calls a function in another process, so that the caller survives a crash.

  The process starts at the first call and lives until `close`.

  Args:
    function: as in `ordered_map`.
    on_crash: as in `ordered_map`.
    tries: how many processes an item may crash before `on_crash` is called.
  """

  def __init__(
    self,
    function: Callable[[Item], Result],
    *,
    on_crash: Callable[[Item], Result],
    tries: int = 2,
  ):
    self._function = function
    self._on_crash = on_crash
    self._tries = tries
    self._process: futures.ProcessPoolExecutor | None = None

  def __call__(self, item: Item) -> Result:
    """Returns `function(item)`, or `on_crash(item)` after crashes."""
    for _ in range(self._tries):
      self._process = self._process or _pool(1)
      try:
        return self._process.submit(self._function, item).result()
      except process.BrokenProcessPool:
        self._process = None
    return self._on_crash(item)

  def close(self) -> None:
    """Ends the process."""
    if self._process:
      self._process.shutdown()


def _pooled(
  function: Callable[[Item], Result], items: list[Item], workers: int
) -> Iterator[Result]:
  pool = _pool(min(workers, len(items)))
  pending: collections.deque[futures.Future[Result]] = collections.deque()
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
  # A fork would copy locks that threads of JAX or NumPy hold.
  return futures.ProcessPoolExecutor(
    workers,
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_follow_parent,
  )


def _follow_parent() -> None:
  """Lets the parent handle interrupts, and ends this process with it."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None  # only spawned processes call this
  parent.join()
  os._exit(1)  # the parent was killed, so the result is of no use
