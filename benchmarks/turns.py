"""Contestants in processes of their own, which take turns.

In one process they would share a heap and threads: what one keeps is in the way
of the next one's largest block, and threads that wait for work still spin. Of
several only the one whose turn it is does anything.
"""

import multiprocessing
import time
import traceback

# A fresh interpreter each: nothing that another one imported or set.
_SPAWN = multiprocessing.get_context('spawn')


class Contestant:
  """A function in a process of its own.

  Args:
    build: makes the function, there. It and its arguments are pickled.
    *arguments, **options: of `build`.

  Attributes:
    build_s: seconds that `build` took, imports included.

  Raises:
    RuntimeError: it failed there; with its traceback.
  """

  def __init__(self, build, *arguments, **options):
    self._pipe, pipe = _SPAWN.Pipe()
    self._process = _SPAWN.Process(
      target=_serve, args=(pipe, build, arguments, options), daemon=True
    )
    self._process.start()
    pipe.close()
    self.build_s = self._answer()

  def __call__(self):
    self._pipe.send('run')
    self._answer()

  def close(self):
    """Ends the process, and gives its memory back."""
    self._pipe.close()
    self._process.join()

  def _answer(self):
    try:
      error, value = self._pipe.recv()
    except EOFError:
      self._process.join()
      raise RuntimeError(
        f'a contestant ended, with exit status {self._process.exitcode}.'
      ) from None
    if error:
      raise RuntimeError(f'a contestant failed:\n{error}')
    return value


def _serve(pipe, build, arguments, options):
  try:
    import jax

    from mtnet_jax.system import host_memory

    # As the commands do; it serves all contestants.
    host_memory.keep()
    start = time.perf_counter()
    function = build(*arguments, **options)
    pipe.send((None, time.perf_counter() - start))
    while True:
      pipe.recv()
      jax.block_until_ready(function())
      pipe.send((None, None))
  except EOFError:
    pass
  except Exception:
    pipe.send((traceback.format_exc(), None))
