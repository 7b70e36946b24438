"""Measures what a call of a training step costs the host.

    python -m benchmarks.calls

The measured program has the same arguments as a training step: the training
state, and the variables of the networks whose outputs the stage uses. Each
array has a single element, and the program only adds them up. The time is
therefore almost entirely the host's dispatch. If every step is a call of its
own, a device idles whenever its step is shorter than this.

The devices are simulated on the CPU with
`--xla_force_host_platform_device_count`. Each number of devices is measured in
a separate process.
"""

import json
import os
import subprocess
import sys
import time

from absl import app
from absl import flags
from ml_collections import config_flags
import numpy as np

from benchmarks import timing

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/mtnet.py', 'The config.'
)
_STAGES = flags.DEFINE_multi_enum(
  'stages',
  ['coarse', 'class'],
  ['coarse', 'class', 'fine'],
  'Stages; repeat the flag.',
)
_DEVICES = flags.DEFINE_multi_integer(
  'devices', [1, 8], 'Numbers of devices; repeat the flag.'
)
_REPEATS = flags.DEFINE_integer('repeats', 30, 'Timed calls.')
_JSON = flags.DEFINE_string('json', '', 'JSON file for the results.')
_CHILD = flags.DEFINE_bool(
  'child', False, 'Internal: measures in this process, and prints JSON.'
)

_COLUMNS = {
  'stage': ('stage', ''),
  'devices': ('devices', 'd'),
  'arrays': ('arrays', 'd'),
  'ms': ('a call, ms', '.1f'),
}
_FLAG = '--xla_force_host_platform_device_count'


def _arguments(config, stage):
  """Returns a step's arguments, with one element in place of each array."""
  import jax

  from mtnet_jax.models import strategies
  from mtnet_jax.training import optim
  from mtnet_jax.training import stages
  from mtnet_jax.training import start as start_lib

  def shapes_of(stage):
    return start_lib.shapes(stage, size=config.image_size)

  tx = optim.make_optimizer(
    learning_rate=1e-4, schedule='constant', total_steps=1
  )
  shapes = shapes_of(stage)
  state = shapes, jax.eval_shape(tx.init, shapes['params'])
  upstream_names = strategies.upstream_names(config.strategy, stage.name)
  upstream = [
    shapes_of(x) for x in stages.make_stages(config) if x.name in upstream_names
  ]
  return jax.tree.map(lambda _: np.zeros(1, np.float32), (state, upstream))


def measure(config, stage):
  """Returns a row of the table for the number of devices of this process."""
  import jax

  from mtnet_jax.system import devices as devices_lib

  def step(state, upstream, x):
    leaves, tree = jax.tree.flatten(state)
    # XLA drops arguments that no output depends on.
    for i, leaf in enumerate(jax.tree.leaves(upstream)):
      leaves[i % len(leaves)] += leaf
    return tree.unflatten([leaf + x for leaf in leaves])

  arguments = _arguments(config, stage)
  call = devices_lib.mapped(
    step,
    precision='highest',
    donate_argnums=0,
    options=devices_lib.lean_options(),
  )
  state, upstream = devices_lib.replicate(arguments)
  seconds = []
  for _ in range(1 + _REPEATS.value):
    start = time.perf_counter()
    state = call(state, upstream, np.ones(jax.device_count(), np.float32))
    seconds.append(time.perf_counter() - start)
    jax.block_until_ready(state)
  return {
    'stage': stage.name,
    'devices': jax.device_count(),
    'arrays': len(jax.tree.leaves(arguments)),
    'ms': 1e3 * float(np.median(seconds[1:])),
  }


def _chosen_stages(config):
  from mtnet_jax.training import stages

  return [x for x in stages.make_stages(config) if x.name in _STAGES.value]


def main(_):
  """Runs the command."""
  if _CHILD.value:
    for stage in _chosen_stages(_CONFIG.value):
      print(json.dumps(measure(_CONFIG.value, stage)), flush=True)
    return
  rows = []
  for num_devices in _DEVICES.value:
    done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.calls', *sys.argv[1:], '--child'],
      env={
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {_FLAG}={num_devices}',
      },
      stdout=subprocess.PIPE,
      text=True,
      check=True,
    )
    rows.extend(map(json.loads, done.stdout.splitlines()))
  print(timing.describe(timing.environment()))
  print(timing.table(rows, _COLUMNS))
  if _JSON.value:
    settings = {'repeats': _REPEATS.value}
    timing.write_json(_JSON.value, settings=settings, rows=rows)


if __name__ == '__main__':
  app.run(main)
