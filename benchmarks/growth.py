"""Measures the time of training as the dataset grows.

    python -m benchmarks.growth
    python -m benchmarks.growth --config.steps_per_call=16
    python -m benchmarks.growth --config=configs/mtnet.py:demo --calls=9

The dataset is the phantom (SIMULATED) nodules, repeated. It is kept either on
the devices or on the host. The columns of the table:

    order   the order of the examples, drawn once an epoch
    feed    the host's work to prepare a step: it selects the indices, or, if
            the dataset stays on the host, the examples of the batch
    host    all work of the host until the step is dispatched
    step    the whole step; the part after `host` is the device's
    gap     the time for which a device would wait for the host: training
            dispatches a call while the device runs the previous call
    epoch   the order and all steps, without overlap, extrapolated from the
            timed steps

If a call has several steps, the times are those of the call divided by the
number of steps.
"""

import tempfile
import time

from absl import app
from absl import flags
from ml_collections import config_flags
import numpy as np

from benchmarks import problem
from benchmarks import timing
from mtnet_jax.data import feeding
from mtnet_jax.system import host_memory

_NODULES = flags.DEFINE_multi_integer(
  'nodules', [1000, 10_000, 100_000], 'Sizes of the dataset; repeat the flag.'
)
_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/mtnet.py:test', 'The config.'
)
_CALLS = flags.DEFINE_integer('calls', 50, 'Timed calls.')
_JSON = flags.DEFINE_string('json', '', 'JSON file for the results.')

_COLUMNS = {
  'nodules': ('nodules', 'd'),
  'dataset': ('dataset', ''),
  'mib': ('MiB', '.0f'),
  'order_s': ('order, s', '.3f'),
  'feed_ms': ('feed, ms', '.2f'),
  'host_ms': ('host, ms', '.2f'),
  'step_ms': ('step, ms', '.1f'),
  'gap_ms': ('gap, ms', '.2f'),
  'epoch_s': ('epoch, s', '.0f'),
}


def _trainer(config, nodules, folder, max_bytes_on_device):
  from mtnet_jax.models import nets
  from mtnet_jax.training import stages
  from mtnet_jax.training import trainer as trainer_lib

  feeding.MAX_BYTES_ON_DEVICE = max_bytes_on_device
  return trainer_lib.Trainer(
    stages.make_stages(config)[0],
    config,
    nets=nets.make_nets(config),
    trained={},
    train=nodules,
    validation=nodules.take(slice(0, 1)),
    directory=folder,
  )


class _TimedFeed:
  """A feeder that records how long each of its calls took."""

  def __init__(self, feed):
    self._feed = feed
    self.seconds = []

  def __call__(self, *args, **kwargs):
    start = time.perf_counter()
    batch = self._feed(*args, **kwargs)
    self.seconds.append(time.perf_counter() - start)
    return batch


def measure(config, nodules, *, on_device, calls):
  """Returns a row of the table: the coarse stage after a warm-up call."""
  import jax

  from mtnet_jax.training import calls as calls_lib

  with tempfile.TemporaryDirectory() as folder:
    trainer = _trainer(config, nodules, folder, 1 << 40 if on_device else -1)
    state = trainer.put_on_devices(trainer.init_state())
    start = time.perf_counter()
    trainer.feed.order_of(0)
    order_s = time.perf_counter() - start
    trainer.feed = feed = _TimedFeed(trainer.feed)
    num_steps = min(calls_lib.max_steps(config), trainer.steps_per_epoch)
    state, _ = jax.block_until_ready(
      trainer.steps(state, 0, num_steps=num_steps)
    )
    host, step = [], []
    for first_step in range(num_steps, (calls + 1) * num_steps, num_steps):
      start = time.perf_counter()
      state, _ = trainer.steps(state, first_step, num_steps=num_steps)
      host.append(time.perf_counter() - start)
      state = jax.block_until_ready(state)
      step.append(time.perf_counter() - start)
    feed_ms, host_ms, step_ms = (
      1e3 * float(np.median(x)) / num_steps
      for x in (feed.seconds[1:], host, step)
    )
    return {
      'nodules': len(nodules),
      'dataset': 'devices' if on_device else 'host',
      'mib': sum(x.nbytes for x in nodules.arrays().values()) / 2**20,
      'order_s': order_s,
      'feed_ms': feed_ms,
      'host_ms': host_ms,
      'step_ms': step_ms,
      'gap_ms': max(0.0, host_ms - (step_ms - host_ms)),
      'epoch_s': order_s + trainer.steps_per_epoch * step_ms / 1e3,
    }


def main(_):
  """Runs the command."""
  # Dispatch is asynchronous then, as it is on accelerators.
  host_memory.keep(several_processes=True)
  config = _CONFIG.value
  phantoms = problem.phantoms('train', data_dir=config.dataset.data_dir)
  rows = []
  for count in _NODULES.value:
    nodules = phantoms.take(np.arange(count) % len(phantoms))
    for on_device in (True, False):
      rows.append(
        measure(config, nodules, on_device=on_device, calls=_CALLS.value)
      )
      print(timing.table(rows[-1:], _COLUMNS).splitlines()[-1], flush=True)
  print(timing.describe(timing.environment()))
  print(f'Coarse stage of configs/mtnet.py:{config.variant}, SIMULATED CT.')
  print(timing.table(rows, _COLUMNS))
  if _JSON.value:
    settings = {
      'simulated': True,
      'variant': config.variant,
      'steps_per_call': config.steps_per_call,
      'calls': _CALLS.value,
    }
    timing.write_json(_JSON.value, settings=settings, rows=rows)


if __name__ == '__main__':
  app.run(main)
