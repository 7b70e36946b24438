"""How fast a GPU could be at most, from the program that is compiled for it.

    python -m benchmarks.roofline
    python -m benchmarks.roofline --card=h200 --nets=class --batch_size=128

The training step is compiled for that card, which need not be there; JAX's CUDA
plugin must, `pip install 'jax[cuda12]'` (in an environment of its own: with it
our commands take a machine for one with a GPU). Nothing is tried out then, as
XLA does where a card is: products are cuBLAS's. Every kernel of the program
takes the time of its products at the card's peak or of its bytes at its
memory's speed, whichever is longer, and `--launch_us` to be started: the
roofline (Williams et al., 2009). What comes out is a bound and not a
measurement. Where that very card is there, the step is timed, too.
MTNET_JAX_TRITON=0 counts it without kernels of our own.
"""

import collections
import functools
import os

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import optax

from benchmarks import cards
from benchmarks import hlo
from benchmarks import jax_contestant
from benchmarks import problem as problem_lib
from benchmarks import timing
from benchmarks.gpu import kinds
from mtnet_jax.ops import target
from mtnet_jax.system import devices

_CARD = flags.DEFINE_enum('card', 'h100', cards.CARDS, 'The GPU.')
_NETS = flags.DEFINE_multi_enum(
  'nets', ['coarse', 'class'], problem_lib.NETS, 'Networks; repeat the flag.'
)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'bfloat16', ('float32', 'bfloat16'), 'Compute type.'
)
_BATCH = flags.DEFINE_integer('batch_size', 64, 'Images at once.')
_SIZE = flags.DEFINE_integer('size', 224, 'Side of the images.')
_LAUNCH = flags.DEFINE_float('launch_us', 2, 'To start a kernel.')
_REPEATS = flags.DEFINE_integer('repeats', 10, 'Timed steps, on a GPU.')
_TRITON = flags.DEFINE_bool(
  'triton',
  False,
  'Products as XLA compiles them by itself; untried, not all of them compile.',
)
_LARGEST = flags.DEFINE_integer('largest', 0, 'Kernels to list, the longest.')
_JSON = flags.DEFINE_string('json', '', 'File for the figures.')

_COLUMNS = {
  'kind': ('kernels', ''),
  'count': ('how many', 'd'),
  'gb': ('GB', '.2f'),
  'tflop': ('TFLOP', '.3f'),
  'ms': ('ms', '.2f'),
  'share': ('share', '.0%'),
}


def compile_for(card, net_name, *, dtype, batch_size, size, triton=False):
  """A training step compiled for a card that is not there."""
  net = jax_contestant.NETS[net_name](dtype=jnp.dtype(dtype))
  problem = problem_lib.make(1, size)
  mesh = jax.sharding.Mesh(card.devices().devices, ('card',))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  def abstract(tree, batch_size=None):
    def of(x):
      shape = x.shape if batch_size is None else (batch_size, *x.shape[1:])
      return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)

    return jax.tree.map(of, tree)

  tx = optax.adam(1e-4)
  precision = 'default' if dtype == 'bfloat16' else 'highest'
  with (
    target.cuda(),
    # Kernels of our own are lowered for the card of the mesh.
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    jax.default_matmul_precision(precision),
  ):
    variables = jax.eval_shape(
      functools.partial(net.init, train=False),
      jax.random.key(0),
      *problem.inputs(net_name),
    )
    state = {
      **variables,
      'opt_state': jax.eval_shape(tx.init, variables['params']),
    }
    step = jax.jit(
      jax_contestant.make_step(net_name, net, tx),
      donate_argnums=0,
      compiler_options={
        **devices.ROUNDED,
        'xla_gpu_autotune_level': 0,
        'xla_gpu_enable_triton_gemm': triton,
      },
    )
    return step.lower(
      abstract(state),
      abstract(problem.inputs(net_name), batch_size),
      abstract(problem.target(net_name), batch_size),
    ).compile()


def seconds_of(kernel, card, *, dtype, launch):
  """At the roofline, all of its runs."""
  computing = kernel.flops / card.flops[dtype]
  moving = kernel.bytes / card.bandwidth
  return kernel.times * (max(computing, moving) + launch)


def rows_of(kernels, card, **options):
  """A row of the table per kind of kernel, and one of all."""
  groups = collections.defaultdict(list)
  for kernel in kernels:
    groups[kinds.kind_of(kernel)].append(kernel)

  def row(kind, some):
    return {
      'kind': kind,
      'count': sum(kernel.times for kernel in some),
      'gb': sum(kernel.times * kernel.bytes for kernel in some) / 1e9,
      'tflop': sum(kernel.times * kernel.flops for kernel in some) / 1e12,
      'ms': 1e3 * sum(seconds_of(kernel, card, **options) for kernel in some),
    }

  rows = [row(kind, some) for kind, some in groups.items()]
  rows = [*sorted(rows, key=lambda row: -row['ms']), row('all', kernels)]
  return [{**row, 'share': row['ms'] / rows[-1]['ms']} for row in rows]


def _is_here(card):
  return jax.devices()[0].device_kind == card.name


def examine(net_name, card):
  """A step of one network: its table, and what follows from it."""
  batch_size = _BATCH.value
  seconds = None
  if _is_here(card):
    contestant = jax_contestant.Contestant(
      net_name,
      problem_lib.make(batch_size, _SIZE.value),
      mode='step',
      dtype=_DTYPE.value,
    )
    compiled = contestant.compiled
    taken = timing.medians({'ours': contestant}, repeats=_REPEATS.value)
    seconds = taken['ours']
  else:
    compiled = compile_for(
      card,
      net_name,
      dtype=_DTYPE.value,
      batch_size=batch_size,
      size=_SIZE.value,
      triton=_TRITON.value,
    )
  options = {'dtype': _DTYPE.value, 'launch': _LAUNCH.value / 1e6}
  kernels = hlo.kernels(compiled.as_text())
  rows = rows_of(kernels, card, **options)
  bound = rows[-1]['ms'] / 1e3
  print(f'\n{net_name}, {_DTYPE.value}, batch {batch_size}, {card.name}')
  print(timing.table(rows, _COLUMNS))
  print(
    f'At most {batch_size / bound:.0f} images a second;'
    f' {jax_contestant.bytes_held(compiled) / 1e9:.1f} GB held.'
  )
  if seconds:
    print(
      f'Measured: {1e3 * seconds:.2f} ms, {batch_size / seconds:.0f} images a'
      f' second, {bound / seconds:.0%} of that.'
    )
  kernels.sort(key=lambda kernel: -seconds_of(kernel, card, **options))
  for kernel in kernels[: _LARGEST.value]:
    print(
      f'{1e3 * seconds_of(kernel, card, **options):8.3f} ms'
      f' {kernel.bytes / 1e6:8.1f} MB {kernel.flops / 1e9:8.1f} GFLOP'
      f' {kernel.times} x {kernel.source}'
    )
  return {
    'net': net_name,
    'rows': rows,
    'bytes_held': jax_contestant.bytes_held(compiled),
    'bound_s': bound,
    'measured_s': seconds,
  }


def main(_):
  # The plugin else refuses to start where there is no driver.
  os.environ.setdefault('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')
  card = cards.CARDS[_CARD.value]
  results = [examine(net_name, card) for net_name in _NETS.value]
  if not _is_here(card):
    print('\nCompiled and counted. Nothing was run on a GPU.')
  print(timing.describe(timing.environment()))
  if _JSON.value:
    settings = {
      flag.name: flag.value for flag in (_CARD, _DTYPE, _BATCH, _SIZE)
    }
    timing.write_json(_JSON.value, settings=settings, nets=results)


if __name__ == '__main__':
  app.run(main)
