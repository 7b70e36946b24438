"""Measures the time from process start to the end of the first training step.

    python -m benchmarks.start_up
    python -m benchmarks.start_up --net=class

"Cold" is a process with an empty compilation cache, "warm" another process with
the cache that the first one filled. Both are measured twice. The time includes
imports, initialisation, compilation and one step, at the paper's size.
"""

import os
import subprocess
import sys
import tempfile
import time

from absl import app
from absl import flags

from benchmarks import problem as problem_lib

_NET = flags.DEFINE_enum('net', 'coarse', problem_lib.NETS, 'Network.')
_BATCH = flags.DEFINE_integer('batch_size', 8, 'Batch size.')
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.')
_CHILD = flags.DEFINE_bool(
  'child', False, 'Internal: takes the step in this process.'
)
_REPEATS = 2


def _take_first_step():
  import jax

  from benchmarks import jax_contestant
  from mtnet_jax.system import compilation_cache
  from mtnet_jax.system import host_memory

  host_memory.keep()
  compilation_cache.enable()
  problem = problem_lib.make(_BATCH.value, _SIZE.value)
  run = jax_contestant.Contestant(_NET.value, problem, mode='step')
  jax.block_until_ready(run())


def _seconds(cache):
  start = time.perf_counter()
  subprocess.run(
    [sys.executable, '-m', 'benchmarks.start_up', '--child']
    + [f'--{flag.name}={flag.value}' for flag in (_NET, _BATCH, _SIZE)],
    env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': cache},
    check=True,
  )
  return time.perf_counter() - start


def main(_):
  """Runs the command."""
  if _CHILD.value:
    _take_first_step()
    return
  for _ in range(_REPEATS):
    with tempfile.TemporaryDirectory() as cache:
      print(f'cold {_seconds(cache):.1f} s', flush=True)
      print(f'warm {_seconds(cache):.1f} s', flush=True)


if __name__ == '__main__':
  app.run(main)
