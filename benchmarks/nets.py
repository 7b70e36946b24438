"""One forward and one training step of each network, against its peers.

    python -m benchmarks.nets
    python -m benchmarks.nets --nets=coarse --modes=step --torch_compile

Contestants take turns in one process: ours; the straightforward Flax port, the
same network on XLA's own convolutions; PyTorch, the same network, channels
last. At the paper's size by default, on random images and a disc for a mask.
Ratios are of medians, ours to the other's: below 1 is faster.
"""

import functools
import time

from absl import app
from absl import flags

from benchmarks import jax_contestant
from benchmarks import problem as problem_lib
from benchmarks import straightforward
from benchmarks import timing
from mtnet_jax import host_memory

_PEERS = ('straightforward', 'torch')

_NETS = flags.DEFINE_multi_enum(
  'nets', ['coarse', 'class'], problem_lib.NETS, 'Networks; repeat the flag.'
)
_MODES = flags.DEFINE_multi_enum(
  'modes', ['forward', 'step'], ('forward', 'step'), 'What is timed.'
)
_PEER = flags.DEFINE_multi_enum(
  'peers', list(_PEERS), _PEERS, 'Which others take part.'
)
_COMPILE = flags.DEFINE_bool(
  'torch_compile', False, 'PyTorch compiled, as a contestant of its own.'
)
_BATCH = flags.DEFINE_integer('batch_size', 8, 'Images at once.')
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed rounds.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ('float32', 'bfloat16'), 'Compute type.'
)
_PRECISION = flags.DEFINE_string(
  'precision', 'highest', "Of our float32 products; 'default' allows TF32."
)
_JSON = flags.DEFINE_string('json', '', 'File for the figures.')

_COLUMNS = {
  'net': ('net', ''),
  'mode': ('', ''),
  'ours_s': ('ours, s', '.3f'),
  'straightforward_s': ('straightforward Flax, s', '.3f'),
  'torch_s': ('PyTorch, s', '.3f'),
  'torch_compiled_s': ('compiled, s', '.3f'),
  'to_straightforward': ('ratio to Flax', '.2f'),
  'to_torch': ('ratio to PyTorch', '.2f'),
  'to_torch_compiled': ('to compiled', '.2f'),
  'compile_s': ('compiling ours, s', '.1f'),
}


def contestants(net_name, mode, problem):
  """Name -> function, and how long ours took to compile."""
  alike = {'mode': mode, 'dtype': _DTYPE.value}
  jax_one = functools.partial(
    jax_contestant.Contestant,
    net_name,
    problem,
    precision=_PRECISION.value,
    **alike,
  )
  start = time.perf_counter()
  functions = {'ours': jax_one()}
  seconds = time.perf_counter() - start
  if 'straightforward' in _PEER.value:
    with straightforward.port():
      functions['straightforward'] = jax_one()
  if 'torch' in _PEER.value:
    from benchmarks import torch_contestant

    torch_one = functools.partial(
      torch_contestant.Contestant, net_name, problem, **alike
    )
    functions['torch'] = torch_one()
    if _COMPILE.value:
      functions['torch_compiled'] = torch_one(compiled=True)
  return functions, seconds


def compare(net_name, mode, problem):
  """A row of the table."""
  functions, compile_s = contestants(net_name, mode, problem)
  medians = timing.medians(
    functions, repeats=_REPEATS.value, label=f'{net_name} {mode}'
  )
  ours = medians['ours']
  return {
    'net': net_name,
    'mode': mode,
    'compile_s': compile_s,
    **{f'{name}_s': seconds for name, seconds in medians.items()},
    **{
      f'to_{name}': ours / seconds
      for name, seconds in medians.items()
      if name != 'ours'
    },
  }


def main(_):
  # As the commands do; it serves all contestants.
  host_memory.keep()
  problem = problem_lib.make(_BATCH.value, _SIZE.value)
  settings = {
    'batch_size': _BATCH.value,
    'size': _SIZE.value,
    'dtype': _DTYPE.value,
    'precision': _PRECISION.value,
    'repeats': _REPEATS.value,
  }
  rows = []
  for net_name in _NETS.value:
    for mode in _MODES.value:
      rows.append(compare(net_name, mode, problem))
      print(timing.table(rows[-1:], _COLUMNS).splitlines()[-1], flush=True)
  print(timing.describe(timing.environment()))
  print(timing.table(rows, _COLUMNS))
  if _JSON.value:
    timing.write_json(_JSON.value, settings=settings, rows=rows)


if __name__ == '__main__':
  app.run(main)
