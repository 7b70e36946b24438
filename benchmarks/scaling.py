"""What a training step sends and keeps: a model of many GPUs, from its program.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --config=configs/mtnet.py --dtype=float32

Nothing is run, and nothing here was measured on a GPU. Counted, by tracing the
step of `mtnet_jax.step` as one of several devices: the bytes that it sums over
the devices, and how often. Counted, too: what the forward pass keeps for the
backward pass, per image. From these and the flags

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
import functools
import math

from absl import app
from absl import flags
import jax
from jax.extend import core as jax_core
import jax.numpy as jnp
from ml_collections import config_flags
import numpy as np

from benchmarks import timing
from mtnet_jax import optim
from mtnet_jax import parallel
from mtnet_jax import stages as stages_lib
from mtnet_jax import step as step_lib
from mtnet_jax import strategies

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

# XLA joins gradients' sums into rounds of so many bytes on GPUs
# (xla_gpu_all_reduce_combine_threshold_bytes).
_ROUND_BYTES = 30 * 2**20
_PATCH = 64


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of a training step of one stage.

  Attributes:
    parameters: how many.
    given_bytes: variables of the trained networks that run before this one.
    gradient_bytes: summed over the devices at the end of a step, with the
      running statistics.
    statistics_bytes: by the batch norms, on the way.
    rounds: sums over devices, one after the other.
    kept_bytes: from the forward for the backward pass, per image.
    largest_bytes: the largest of what is kept, per image.
  """

  parameters: int
  given_bytes: int
  gradient_bytes: int
  statistics_bytes: int
  rounds: int
  kept_bytes: float
  largest_bytes: float

  def memory_bytes(self, batch_size, *, work):
    """Of a device, for so many images."""
    fixed = 4 * 4 * self.parameters + self.given_bytes
    return fixed + batch_size * (self.kept_bytes + work * self.largest_bytes)

  def largest_batch(self, capacity_bytes, *, work):
    """Images that fit."""
    each = self.memory_bytes(1, work=work) - self.memory_bytes(0, work=work)
    room = capacity_bytes - self.memory_bytes(0, work=work)
    return max(0, math.floor(room / each))

  def seconds_of_sums(self, devices, *, latency, bandwidth):
    """What a step on so many devices takes beyond computing."""
    sent = 2 * (devices - 1) / devices
    sent *= self.gradient_bytes + self.statistics_bytes
    return self.rounds * latency + sent / bandwidth


def bytes_of(tree):
  """Of all leaves that have a shape and a type."""
  return sum(
    math.prod(x.shape) * np.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )


def summed_bytes(jaxpr):
  """Bytes of what a program sums over its axes, sum by sum."""
  found = []
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'psum':
      found.append(bytes_of([x.aval for x in equation.invars]))
    for inner in jax_core.jaxprs_in_params(equation.params):
      found += summed_bytes(inner)
  return found


def _arguments(stage, config, tx, nets, shapes, batch_size):
  """Shapes of `step_lib.train_step`'s arguments."""
  opt_state = jax.eval_shape(tx.init, shapes['params'])
  state = step_lib.TrainState(
    step=jax.ShapeDtypeStruct((), jnp.int32),
    params=shapes['params'],
    batch_stats=shapes['batch_stats'],
    opt_state=opt_state,
    loss_sum=jax.ShapeDtypeStruct((), jnp.float32),
  )
  given = {
    other.name: stages_lib.stage_shapes(other, size=config.image_size)
    for other in stages_lib.make_stages(config)
    if other.name in nets
  }
  patches = (1, _PATCH, _PATCH)
  data = {
    'image': jax.ShapeDtypeStruct(patches, jnp.int16),
    'mask': jax.ShapeDtypeStruct(patches, jnp.uint8),
    'label': jax.ShapeDtypeStruct((1,), jnp.int32),
  }
  index = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
  batch = {'index': index, 'look': index, 'place': index}
  numbers = {'seed': np.uint32(0), **step_lib.loss_numbers(config)}
  return state, given, data, batch, numbers


def _step_of(stage, config, batch_size):
  """The step of one device, and the shapes of its arguments."""
  tx = optim.make_optimizer(
    learning_rate=1e-4, schedule='constant', total_steps=1
  )
  nets = stages_lib.make_nets(config)
  givers = strategies.givers(config.strategy, stage.name)
  step = functools.partial(
    step_lib.train_step,
    stage=stage,
    nets=tuple((name, nets[name]) for name in givers),
    tx=tx,
    options=step_lib.step_options(config, steps_per_epoch=1),
  )
  shapes = stages_lib.stage_shapes(stage, size=config.image_size)
  return step, _arguments(stage, config, tx, givers, shapes, batch_size)


def _kept(stage, config, batch_size):
  """Shapes of what a network's forward pass keeps."""
  shapes = stages_lib.stage_shapes(stage, size=config.image_size)
  side = config.image_size
  channels = [3]
  if strategies.KINDS[stage.receives].channels:
    channels.append(strategies.KINDS[stage.receives].channels)
  inputs = [
    jax.ShapeDtypeStruct((batch_size, side, side, x), jnp.float32)
    for x in channels
  ]
  # Alone, for its residuals depend on no other device.
  net = stage.net.clone(axis_name=None)

  def residuals(variables, *inputs):
    def forward(params):
      (logits, _), _ = net.apply(
        {**variables, 'params': params},
        *inputs,
        train=True,
        rngs={'dropout': jax.random.key(0)},
        mutable=['batch_stats'],
      )
      return logits

    return jax.vjp(forward, variables['params'])[1]

  return jax.tree.leaves(jax.eval_shape(residuals, shapes, *inputs))


def cost_of(stage, config):
  """The `Cost` of a step of a stage whose batch norms are synchronised."""
  step, arguments = _step_of(stage, config, 1)
  program = jax.make_jaxpr(step, axis_env=[(parallel.AXIS, 2)])(*arguments)
  state, given, *_ = arguments
  at_the_end = bytes_of([state.params, state.batch_stats, state.loss_sum])
  # Forward and backward, a batch norm's two sums go together.
  norms = sum(
    path[-1].key == 'mean'
    for path, _ in jax.tree_util.tree_leaves_with_path(state.batch_stats)
  )
  one, two = (_kept(stage, config, count) for count in (1, 2))
  each = [bytes_of(b) - bytes_of(a) for a, b in zip(one, two, strict=True)]
  return Cost(
    parameters=bytes_of(state.params) // 4,
    given_bytes=bytes_of(given),
    gradient_bytes=at_the_end,
    statistics_bytes=sum(summed_bytes(program.jaxpr)) - at_the_end,
    rounds=2 * norms + math.ceil(at_the_end / _ROUND_BYTES),
    kept_bytes=sum(each),
    largest_bytes=max(each),
  )


def _bandwidth(devices):
  within = devices <= _PER_NODE.value
  return 1e9 * (_LINK.value if within else _NETWORK.value)


def _row(stage, config, dtype):
  cost = cost_of(stage, config)
  return {
    'stage': stage.name,
    'dtype': dtype,
    **dataclasses.asdict(cost),
    'million': cost.parameters / 1e6,
    'end_mb': cost.gradient_bytes / 1e6,
    'norm_mb': cost.statistics_bytes / 1e6,
    'kept_mb': cost.kept_bytes / 1e6,
    'fixed_gb': cost.memory_bytes(0, work=_WORK.value) / 1e9,
    'image_mb': (
      cost.memory_bytes(1, work=_WORK.value)
      - cost.memory_bytes(0, work=_WORK.value)
    )
    / 1e6,
    **{
      f'batch_{capacity:g}': cost.largest_batch(
        _USABLE.value * 1e9 * capacity, work=_WORK.value
      )
      for capacity in _CAPACITY.value
    },
    **{
      f'sums_{devices}_ms': 1e3
      * cost.seconds_of_sums(
        devices,
        latency=1e-6 * _LATENCY.value,
        bandwidth=_bandwidth(devices),
      )
      for devices in _DEVICES.value
    },
  }


def _efficiencies(rows):
  """A row per stage and number of devices."""
  for row in rows:
    for devices in _DEVICES.value:
      sums = row[f'sums_{devices}_ms']
      yield {
        'stage': row['stage'],
        'devices': devices,
        'sums': sums,
        **{f'at_{alone:g}': alone / (alone + sums) for alone in _STEP_MS.value},
      }


def main(_):
  config = _CONFIG.value
  rows = []
  for dtype in _DTYPE.value:
    with config.unlocked():
      config.dtype = dtype
      config.sync_batch_norm = True
    for stage in stages_lib.make_stages(config):
      rows.append(_row(stage, config, dtype))
  columns = {
    'stage': ('stage', ''),
    'dtype': ('type', ''),
    'million': ('parameters, M', '.1f'),
    'end_mb': ('gradients, MB a step', '.1f'),
    'norm_mb': ('batch norms, MB', '.3f'),
    'rounds': ('rounds', 'd'),
    'kept_mb': ('kept, MB an image', '.0f'),
    'fixed_gb': ('fixed, GB', '.2f'),
    'image_mb': ('memory, MB an image', '.0f'),
    **{
      f'batch_{capacity:g}': (f'batch in {capacity:g} GB', 'd')
      for capacity in _CAPACITY.value
    },
  }
  print(timing.table(rows, columns))
  print('Modelled, not measured: share of the perfect speed, by T1.')
  first = [row for row in rows if row['dtype'] == rows[0]['dtype']]
  efficiencies = list(_efficiencies(first))
  print(
    timing.table(
      efficiencies,
      {
        'stage': ('stage', ''),
        'devices': ('GPUs', 'd'),
        'sums': ('sums, ms', '.1f'),
        **{
          f'at_{alone:g}': (f'T1 {alone:g} ms', '.2f')
          for alone in _STEP_MS.value
        },
      },
    )
  )
  if _JSON.value:
    timing.write_json(_JSON.value, rows=rows, efficiencies=efficiencies)


if __name__ == '__main__':
  app.run(main)
