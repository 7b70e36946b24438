"""A model of many GPUs: speed, memory and the largest batch of a training step.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --config=configs/mtnet.py --dtype=float32

Nothing is run, and nothing here was measured on a GPU. From what `step_cost`
counts in the traced step, and from the flags,

* a device's memory, fixed + images x (kept + `work` x the largest activation):
  parameters, Adam's two averages and gradients in float32 are fixed, and so are
  the trained networks that run before; `work` activations of the largest kind
  are there at once beside what is kept;
* a step's time, T = T1 + rounds x latency + 2 (N - 1) / N x bytes / bandwidth,
  of a ring over N devices, nothing of which is hidden behind computing. The
  bandwidth is the slowest link's: within a node of `--per_node` the GPUs' own
  links', beyond it the network's. T1, one GPU's step, is given: the efficiency
  T1 / T is shown for several.
"""

import dataclasses

from absl import app
from absl import flags
from ml_collections import config_flags

from benchmarks import step_cost
from benchmarks import timing
from mtnet_jax.training import stages

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/mtnet.py', 'The config.'
)
_DTYPE = flags.DEFINE_multi_enum(
  'dtype', ['float32', 'bfloat16'], ['float32', 'bfloat16'], 'Compute types.'
)
_CAPACITY = flags.DEFINE_multi_float(
  'capacity_gb', [16, 24, 80, 141], "GPUs' memory, 10^9 bytes."
)
_USABLE = flags.DEFINE_float(
  'usable', 0.9, 'Share of it that is not taken by context and fragments.'
)
_WORK = flags.DEFINE_float(
  'work', 4, 'Largest activations there at once, beside what is kept.'
)
_DEVICES = flags.DEFINE_multi_integer(
  'devices', [8, 16, 32, 64], 'Numbers of GPUs.'
)
_PER_NODE = flags.DEFINE_integer('per_node', 8, 'GPUs of a node.')
_LINK = flags.DEFINE_float(
  'link_gb_s', 450, 'Within a node, a direction, per GPU: NVLink 4, nominal.'
)
_NETWORK = flags.DEFINE_float(
  'network_gb_s', 50, 'Between nodes, a direction, per GPU: 400 Gbit/s.'
)
_LATENCY = flags.DEFINE_float(
  'latency_us', 20, 'Of a sum over devices, however small.'
)
_STEP_MS = flags.DEFINE_multi_float(
  'step_ms', [25, 50, 100, 200], "One GPU's step, assumed."
)
_JSON = flags.DEFINE_string('json', '', 'File for the figures.')


_MEMORY_COLUMNS = {
  'stage': ('stage', ''),
  'dtype': ('type', ''),
  'million': ('parameters, M', '.1f'),
  'end_mb': ('gradients, MB a step', '.1f'),
  'norm_mb': ('batch norms, MB', '.3f'),
  'rounds': ('rounds', 'd'),
  'kept_mb': ('kept, MB an image', '.0f'),
  'fixed_gb': ('fixed, GB', '.2f'),
  'image_mb': ('memory, MB an image', '.0f'),
}
_SPEED_COLUMNS = {
  'stage': ('stage', ''),
  'devices': ('GPUs', 'd'),
  'sums_ms': ('sums, ms', '.1f'),
}


def _bandwidth(devices):
  within = devices <= _PER_NODE.value
  return 1e9 * (_LINK.value if within else _NETWORK.value)


def _row(stage_name, dtype, cost):
  return {
    'stage': stage_name,
    'dtype': dtype,
    **dataclasses.asdict(cost),
    'million': cost.parameters / 1e6,
    'end_mb': cost.gradient_bytes / 1e6,
    'norm_mb': cost.statistics_bytes / 1e6,
    'kept_mb': cost.kept_bytes / 1e6,
    'fixed_gb': cost.fixed_bytes / 1e9,
    'image_mb': cost.image_bytes(work=_WORK.value) / 1e6,
    **{
      f'batch_{capacity:g}': cost.largest_batch(
        _USABLE.value * 1e9 * capacity, work=_WORK.value
      )
      for capacity in _CAPACITY.value
    },
  }


def _efficiencies(costs):
  """A row per stage and number of devices.

  Args:
    costs: stage name -> `step_cost.Cost`.
  """
  for stage, cost in costs.items():
    for devices in _DEVICES.value:
      sums_ms = 1e3 * cost.seconds_of_sums(
        devices,
        latency=1e-6 * _LATENCY.value,
        bandwidth=_bandwidth(devices),
      )
      yield {
        'stage': stage,
        'devices': devices,
        'sums_ms': sums_ms,
        **{
          f'at_{alone:g}': alone / (alone + sums_ms) for alone in _STEP_MS.value
        },
      }


def main(_):
  config = _CONFIG.value
  rows, costs = [], {}
  for dtype in _DTYPE.value:
    with config.unlocked():
      config.dtype = dtype
      config.sync_batch_norm = True
    for stage in stages.make_stages(config):
      cost = step_cost.cost_of(stage, config)
      rows.append(_row(stage.name, dtype, cost))
      # What is summed is float32 whatever the compute type.
      costs[stage.name] = cost
  memory_columns = _MEMORY_COLUMNS | {
    f'batch_{capacity:g}': (f'batch in {capacity:g} GB', 'd')
    for capacity in _CAPACITY.value
  }
  speed_columns = _SPEED_COLUMNS | {
    f'at_{alone:g}': (f'T1 {alone:g} ms', '.2f') for alone in _STEP_MS.value
  }
  print(timing.table(rows, memory_columns))
  efficiencies = list(_efficiencies(costs))
  print('Modelled, not measured: share of the perfect speed, by T1.')
  print(timing.table(efficiencies, speed_columns))
  if _JSON.value:
    timing.write_json(_JSON.value, rows=rows, efficiencies=efficiencies)


if __name__ == '__main__':
  app.run(main)
