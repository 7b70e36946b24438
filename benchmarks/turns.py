"""Contestants in processes of their own, which take turns.

In one process they would share a heap and threads: what one keeps is in the way
of the next one's largest block, and threads that wait for work still spin. Of
several only the one whose turn it is does anything. They can be built at the
same time.
"""

import multiprocessing
import time
import traceback

# A fresh interpreter each: nothing that another one imported or set.
_SPAWN = multiprocessing.get_context('spawn')


class Contestant:
  """A function in a process of its own, which starts to build it at once.

  What the function returns is waited for, where it is JAX's, and so is its
  method `wait()`, where it has one.

  Args:
    build: makes the function, there. It and its arguments are pickled.
    *arguments, **options: of `build`.
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
      timeout: seconds to wait at most; None for as long as it takes.

    Returns:
      Whether it is built.

    Raises:
      RuntimeError: it failed there; with its traceback. So do all methods that
        wait.
    """
    if self._build_s is None:
      try:
        self._build_s = self._answer(timeout)
      except TimeoutError:
        return False
    return True

  @property
  def build_s(self):
    """Seconds that `build` took, imports included; waits for it."""
    self.ready()
    return self._build_s

  def run(self, times=1, timeout=None):
    """Runs the function several times back to back, and waits at the end.

    Args:
      times: how often.
      timeout: seconds to wait at most. A contestant that took longer can only
        be closed.

    Returns:
      Seconds of all calls together, as measured there.

    Raises:
      TimeoutError: it took longer.
    """
    self.ready()
    return self._ask('run', times, timeout=timeout)

  def __call__(self):
    self.run()

  def figures(self, timeout=None):
    """What the function's method `figures()` returns; {} without one."""
    self.ready()
    return self._ask('figures', timeout=timeout)

  def close(self, kill=False):
    """Ends the process, and gives its memory back.

    Args:
      kill: without waiting for what it does. One that is not built is killed
        in any case.
    """
    self._pipe.close()
    if kill or self._build_s is None:
      self._process.kill()
    self._process.join()

  def _ask(self, *request, timeout=None):
    try:
      self._pipe.send(request)
    except BrokenPipeError:
      pass  # It ended, and may have said why.
    return self._answer(timeout)

  def _answer(self, timeout=None):
    try:
      if not self._pipe.poll(timeout):
        raise TimeoutError(f'no answer from a contestant in {timeout:.0f} s.')
      error, value = self._pipe.recv()
    except (EOFError, ConnectionResetError):
      self._process.join()
      raise RuntimeError(
        f'a contestant ended, with exit status {self._process.exitcode}.'
      ) from None
    if error:
      raise RuntimeError(f'a contestant failed:\n{error}')
    return value


def _serve(pipe, build, arguments, options):
  try:
    from mtnet_jax.system import host_memory

    # As the commands do; it serves all contestants.
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
