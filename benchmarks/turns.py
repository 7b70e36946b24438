"""Runs each contestant in its own process; contestants take turns.

In one process, contestants would share a heap and threads: memory that one
keeps fragments the heap for the next, and idle worker threads still spin. With
separate processes, only the contestant whose turn it is runs. Contestants can
be built in parallel.
"""

import multiprocessing
import time
import traceback

# Each process starts a new interpreter, without imports or settings of another.
_SPAWN = multiprocessing.get_context('spawn')


class Contestant:
  """A function in its own process, which starts to build it immediately.

  A timed run ends when the JAX arrays that the function returned are computed,
  and when its method `wait()`, if it has one, has returned.

  Args:
    build: function that makes the timed function in the process. It is pickled
      together with its arguments.
    *arguments: positional arguments of `build`.
    **options: keyword arguments of `build`.
  """

  def __init__(self, build, *arguments, **options):
    self._pipe, pipe = _SPAWN.Pipe()
    self._process = _SPAWN.Process(
      target=_serve, args=(pipe, build, arguments, options), daemon=True
    )
    self._process.start()
    pipe.close()
    self._build_s = None

  def ready(self, timeout=None):
    """Waits until the function is built.

    Args:
      timeout: the longest time to wait, in seconds; None for no limit.

    Returns:
      Whether it is built.

    Raises:
      RuntimeError: the process failed; the message has its traceback. All
        methods that wait raise this.
    """
    if self._build_s is None:
      try:
        self._build_s = self._answer(timeout)
      except TimeoutError:
        return False
    return True

  @property
  def build_s(self):
    """Seconds that `build` took, with imports; waits for the build."""
    self.ready()
    return self._build_s

  def run(self, times=1, timeout=None):
    """Calls the function several times in a row, and waits once at the end.

    Args:
      times: number of calls.
      timeout: the longest time to wait, in seconds. After a timeout the
        contestant can only be closed.

    Returns:
      Seconds of all calls together, measured in the process.

    Raises:
      TimeoutError: the calls took longer than `timeout`.
    """
    self.ready()
    return self._ask('run', times, timeout=timeout)

  def __call__(self):
    """Calls the function once."""
    self.run()

  def figures(self, timeout=None):
    """Returns the function's `figures()`; {} if it has no such method."""
    self.ready()
    return self._ask('figures', timeout=timeout)

  def close(self, kill=False):
    """Stops the process and frees its memory.

    Args:
      kill: whether to kill the process during a call. A process that is still
        building is always killed.
    """
    self._pipe.close()
    if kill or self._build_s is None:
      self._process.kill()
    self._process.join()

  def _ask(self, *request, timeout=None):
    try:
      self._pipe.send(request)
    except BrokenPipeError:
      pass  # The process ended; `_answer` reads its last message.
    return self._answer(timeout)

  def _answer(self, timeout=None):
    try:
      if not self._pipe.poll(timeout):
        raise TimeoutError(
          f'a contestant did not answer within {timeout:.0f} s.'
        )
      error, value = self._pipe.recv()
    except (EOFError, ConnectionResetError):
      self._process.join()
      raise RuntimeError(
        'the process of a contestant ended with exit status'
        f' {self._process.exitcode}.'
      ) from None
    if error:
      raise RuntimeError(f'a contestant failed:\n{error}')
    return value


def _serve(pipe, build, arguments, options):
  try:
    from mtnet_jax.system import host_memory

    # The commands do this, too. All contestants profit from it.
    host_memory.keep()
    start = time.perf_counter()
    function = build(*arguments, **options)
    pipe.send((None, time.perf_counter() - start))
    while True:
      request, *arguments = pipe.recv()
      if request == 'run':
        answer = _seconds(function, *arguments)
      else:
        answer = function.figures() if hasattr(function, 'figures') else {}
      pipe.send((None, answer))
  except (EOFError, BrokenPipeError, ConnectionResetError):
    pass
  except Exception:
    pipe.send((traceback.format_exc(), None))


def _seconds(function, times):
  import jax

  start = time.perf_counter()
  for _ in range(times):
    result = function()
  jax.block_until_ready(result)
  if hasattr(function, 'wait'):
    function.wait()
  return time.perf_counter() - start
