"""Times a forward pass and a training step of each network and its peers.

    python -m benchmarks.nets
    python -m benchmarks.nets --nets=coarse --modes=step --torch_compile

The contestants take turns, each in its own process: our network; the
straightforward Flax port, which is the same network on XLA's own convolutions;
and the same network in PyTorch, channels last. The default is the paper's size.
Images are random, and the mask is a disc. A ratio is our median divided by the
other's, so that below 1 ours is faster.
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
  'modes',
  ['forward', 'step'],
  ('forward', 'step'),
  'What is timed; repeat the flag.',
)
_PEER = flags.DEFINE_multi_enum(
  'peers', list(_PEERS), _PEERS, 'Contestants beside ours; repeat the flag.'
)
_COMPILE = flags.DEFINE_bool(
  'torch_compile', False, 'Adds compiled PyTorch as another contestant.'
)
_BATCH = flags.DEFINE_integer('batch_size', 8, 'Batch size.')
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed rounds.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ('float32', 'bfloat16'), 'Compute type.'
)
_PRECISION = flags.DEFINE_string(
  'precision',
  'highest',
  "Precision of our float32 products; 'default' allows TF32.",
)
_JSON = flags.DEFINE_string('json', '', 'JSON file for the results.')

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
  """Returns contestant name -> (function that builds it, its own options)."""
  precision = {'precision': _PRECISION.value}
  builders = {'ours': (_ours, precision)}
  if 'straightforward' in _PEER.value:
    builders['straightforward'] = _straightforward, precision
  if 'torch' in _PEER.value:
    builders['torch'] = _torch, {}
    if _COMPILE.value:
      builders['torch_compiled'] = _torch, {'compiled': True}
  return builders


def compare(net_name, mode):
  """Returns the row of the table for a network and a mode."""
  arguments = net_name, _BATCH.value, _SIZE.value
  options = {'mode': mode, 'dtype': _DTYPE.value}
  contestants = {}
  try:
    for name, (build, own) in _builders().items():
      contestants[name] = turns.Contestant(build, *arguments, **options, **own)
      # Built one after the other, because the table has the build time of ours.
      contestants[name].ready()
    medians = timing.medians(
      contestants, repeats=_REPEATS.value, label=f'{net_name} {mode}'
    )
  finally:
    for contestant in contestants.values():
      contestant.close()
  ours = medians['ours']
  return {
    'net': net_name,
    'mode': mode,
    'ready_s': contestants['ours'].build_s,
    **{f'{name}_s': seconds for name, seconds in medians.items()},
    **{
      f'to_{name}': ours / seconds
      for name, seconds in medians.items()
      if name != 'ours'
    },
  }


def main(_):
  """Runs the command."""
  # On a GPU, the contestants share its memory.
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
