"""Freed memory is kept, so that steps need no new pages from the kernel."""

import sys

import main_job
import pytest

from mtnet_jax.system import host_memory

_COUNT = """
import resource, sys
from mtnet_jax.system import host_memory
kept = sys.argv[1] == 'keep' and host_memory.keep()
import jax, jax.numpy as jnp
# The running sums, 80 MB, are needed in the middle only.
step = jax.jit(lambda x: jnp.sum(jnp.cumsum(x)[::-1] * x))
x = jnp.ones(20_000_000)
faults = []
# By chance, a small allocation may lie in the hole that a step left, so that
# the next step needs new pages. After some steps this no longer happens.
for _ in range(20 if kept else 5):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(x).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
  if min(faults) < 1000:
    break
print(kept, min(faults))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='counts pages of Linux')
def test_steps_reuse_their_pages():
  def faults(argument):
    done = main_job.run([sys.executable, '-c', _COUNT, argument])
    assert done.returncode == 0, done.stderr
    kept, count = done.stdout.split()
    return kept == 'True', int(count)

  kept, few = faults('keep')
  if not kept:
    pytest.skip('with an accelerator, or without mallopt')
  _, many = faults('default')
  # 80 MB are 20 thousand pages of 4 KiB.
  assert many > 10_000
  assert few < many / 10


_GIVE_BACK = """
import ctypes
from mtnet_jax.system import host_memory
kept = host_memory.keep()
from jax import monitoring
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def resident():
  with open('/proc/self/status') as file:
    status = dict(line.split(':') for line in file)
  return int(status['VmRSS'].split()[0]) // 1024
hole = libc.malloc(200 << 20)
ctypes.memset(hole, 1, 200 << 20)
# Without this block above it, the hole would be the end of the heap.
lid = libc.malloc(1 << 20)
libc.free(hole)
full = resident()
event = '/jax/core/compile/backend_compile_duration'
monitoring.record_event_duration_secs(event, 0.1)
after_short = resident()
monitoring.record_event_duration_secs(event, 2.0)
print(kept, full - after_short, full - resident())
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_freed_by_the_compiler_is_returned():
  done = main_job.run([sys.executable, '-c', _GIVE_BACK])
  assert done.returncode == 0, done.stderr
  kept, after_short, after_long = done.stdout.split()
  if kept == 'False':
    pytest.skip('with an accelerator, or without mallopt')
  assert int(after_short) < 10
  assert int(after_long) > 190


_CALL = """
import sys
from mtnet_jax.system import host_memory
kept = sys.argv[1] == 'keep' and host_memory.keep()
import jax, jax.numpy as jnp
def turn(i, total):
  return total + jnp.sum(jnp.cumsum(x * i)[::-1] * x)
x = jnp.ones(5_000_000)
long = jax.jit(lambda x: jax.lax.fori_loop(0, 3, turn, 0.0))
long(x).block_until_ready()
print(kept, long(x).is_ready())
"""


def test_steps_are_computed_synchronously():
  def is_ready(argument):
    done = main_job.run([sys.executable, '-c', _CALL, argument])
    assert done.returncode == 0, done.stderr
    kept, ready = done.stdout.split()
    return kept == 'True', ready == 'True'

  kept, ready = is_ready('keep')
  if not kept:
    pytest.skip('with an accelerator, or without mallopt')
  assert ready
  # By default, the same call returns while it is still computed.
  assert is_ready('default') == (False, False)


def test_with_an_accelerator_nothing_is_changed(monkeypatch):
  monkeypatch.setattr(
    host_memory.importlib.util, 'find_spec', lambda name: name == 'libtpu'
  )
  monkeypatch.setattr(
    host_memory.ctypes, 'CDLL', lambda _: pytest.fail('must not be called')
  )
  assert host_memory.keep() is False


def test_with_another_c_library_nothing_is_changed(monkeypatch):
  monkeypatch.setattr(host_memory.importlib.util, 'find_spec', lambda _: None)
  monkeypatch.setattr(host_memory.ctypes, 'CDLL', lambda _: object())
  assert host_memory.keep() is False
