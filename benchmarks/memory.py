"""Measures the peak memory of a training step or a forward pass.

    python -m benchmarks.memory
    python -m benchmarks.memory --net=class --mode=forward

Each contestant runs in its own process. Memory is counted above what the
process held after its imports: `whole` includes compilation, `step` begins with
the second call of the compiled program. `device` is the peak of a GPU's
allocator.
"""

import json
import os
import pathlib
import subprocess
import sys

from absl import app
from absl import flags

from benchmarks import problem as problem_lib

CONTESTANTS = ('ours', 'straightforward', 'torch')

_NET = flags.DEFINE_enum('net', 'coarse', problem_lib.NETS, 'Network.')
_MODE = flags.DEFINE_enum(
  'mode', 'step', ('forward', 'step'), 'What is measured.'
)
_BATCH = flags.DEFINE_integer('batch_size', 8, 'Batch size.')
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ('float32', 'bfloat16'), 'Compute type.'
)
_ONLY = flags.DEFINE_enum(
  'only',
  None,
  CONTESTANTS,
  'Measures one contestant in this process, and prints JSON.',
)
_REPEATS = 3


def _status(name):
  """Returns the bytes of a line of /proc/self/status, such as VmRSS."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(name + ':'):
      return 1024 * int(line.split()[1])
  raise RuntimeError(f'/proc/self/status has no {name}.')


def _reset_peak():
  pathlib.Path('/proc/self/clear_refs').write_text('5')


def _contestant_builder(name):
  problem = problem_lib.make(_BATCH.value, _SIZE.value)
  options = {'mode': _MODE.value, 'dtype': _DTYPE.value}
  if name == 'torch':
    from benchmarks import torch_contestant

    return lambda: torch_contestant.Contestant(_NET.value, problem, **options)
  from benchmarks import jax_contestant
  from benchmarks import straightforward
  from mtnet_jax.system import host_memory

  if name == 'ours':
    host_memory.keep()

  def build():
    if name == 'ours':
      return jax_contestant.Contestant(_NET.value, problem, **options)
    with straightforward.port():
      return jax_contestant.Contestant(_NET.value, problem, **options)

  return build


def _device_peak(name):
  """Returns the peak bytes of a GPU's allocator; None on a CPU."""
  if name == 'torch':
    import torch

    return (
      torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    )
  import jax

  statistics = jax.local_devices()[0].memory_stats() or {}
  return statistics.get('peak_bytes_in_use')


def _measure(name):
  import jax

  build = _contestant_builder(name)
  before = _status('VmRSS')
  _reset_peak()
  run = build()
  jax.block_until_ready(run())
  whole = _status('VmHWM')
  _reset_peak()
  for _ in range(_REPEATS):
    jax.block_until_ready(run())
  step = _status('VmHWM')
  return {
    'whole': max(whole, step) - before,
    'step': step - before,
    'device': _device_peak(name),
  }


def main(_):
  """Runs the command."""
  if _ONLY.value:
    print(json.dumps(_measure(_ONLY.value)))
    return
  peaks = {}
  for name in CONTESTANTS:
    done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.memory', f'--only={name}']
      + [
        f'--{flag.name}={flag.value}'
        for flag in (_NET, _MODE, _BATCH, _SIZE, _DTYPE)
      ],
      env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '2'},
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    )
    peaks[name] = json.loads(done.stdout.splitlines()[-1])
    print(
      f'{name:16}'
      + '  '.join(
        f'{key} {value / 2**30:.2f} GiB'
        for key, value in peaks[name].items()
        if value is not None
      ),
      flush=True,
    )
  for key in ('whole', 'step'):
    ratio = peaks['ours'][key] / peaks['torch'][key]
    print(f'ours to PyTorch, {key}: {ratio:.2f}')


if __name__ == '__main__':
  app.run(main)
