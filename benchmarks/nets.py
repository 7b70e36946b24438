"""One forward and one training step of each network, against its peers.

    python -m benchmarks.nets
    python -m benchmarks.nets --nets=coarse --modes=step --torch_compile

Contestants take turns, each in a process of its own: ours; the straightforward
Flax port, the same network on XLA's own convolutions; PyTorch, the same
network, channels last. At the paper's size by default, on random images and a
disc for a mask. Ratios are of medians, ours to the other's: below 1 is faster.
"""

import os

from absl import app
from absl import flags

from benchmarks import problem as problem_lib
from benchmarks import timing
from benchmarks import turns

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
  'ready_s': ('ours ready after, s', '.1f'),
}


def _ours(net_name, batch_size, size, **options):
  from benchmarks import jax_contestant

  problem = problem_lib.make(batch_size, size)
  return jax_contestant.Contestant(net_name, problem, **options)


def _straightforward(*arguments, **options):
  from benchmarks import straightforward

  with straightforward.port():
    return _ours(*arguments, **options)


def _torch(net_name, batch_size, size, **options):
  from benchmarks import torch_contestant

  problem = problem_lib.make(batch_size, size)
  return torch_contestant.Contestant(net_name, problem, **options)


def _builders():
  """Name -> function that builds a contestant, and options of its own."""
  precision = {'precision': _PRECISION.value}
  found = {'ours': (_ours, precision)}
  if 'straightforward' in _PEER.value:
    found['straightforward'] = _straightforward, precision
  if 'torch' in _PEER.value:
    found['torch'] = _torch, {}
    if _COMPILE.value:
      found['torch_compiled'] = _torch, {'compiled': True}
  return found


def compare(net_name, mode):
  """A row of the table."""
  arguments = net_name, _BATCH.value, _SIZE.value
  options = {'mode': mode, 'dtype': _DTYPE.value}
  found = {}
  try:
    for name, (build, own) in _builders().items():
      found[name] = turns.Contestant(build, *arguments, **options, **own)
      # One after the other, for how long ours takes is among the figures.
      found[name].ready()
    medians = timing.medians(
      found, repeats=_REPEATS.value, label=f'{net_name} {mode}'
    )
  finally:
    for contestant in found.values():
      contestant.close()
  ours = medians['ours']
  return {
    'net': net_name,
    'mode': mode,
    'ready_s': found['ours'].build_s,
    **{f'{name}_s': seconds for name, seconds in medians.items()},
    **{
      f'to_{name}': ours / seconds
      for name, seconds in medians.items()
      if name != 'ours'
    },
  }


def main(_):
  # On a GPU all have a part of its memory at the same time.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
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
      rows.append(compare(net_name, mode))
      print(timing.table(rows[-1:], _COLUMNS).splitlines()[-1], flush=True)
  print(timing.describe(timing.environment()))
  print(timing.table(rows, _COLUMNS))
  if _JSON.value:
    timing.write_json(_JSON.value, settings=settings, rows=rows)


if __name__ == '__main__':
  app.run(main)
