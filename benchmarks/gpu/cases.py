"""The cases and contestants that `benchmarks.gpu.speed` times."""

import dataclasses
import os

from benchmarks import problem as problem_lib
from benchmarks.gpu import profile as profile_lib

_PEERS = 'torch', 'straightforward', 'views', 'library_products'
_NARROW = {
  'stem_widths': (4, 8),
  'entry_widths': (8, 8, 8),
  'middle_blocks': 1,
  'exit_width': 8,
  'tail_widths': (8, 8),
}
_NARROW_DECODER = {
  'aspp_features': 8,
  'low_level_features': 4,
  'decoder_features': 8,
}


@dataclasses.dataclass(frozen=True)
class Case:
  """One forward pass or training step to time.

  Attributes:
    net: one of `problem.NETS`.
    mode: 'forward' or 'step'.
    batch: batch size.
  """

  net: str
  mode: str
  batch: int


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes and time limits of a measurement.

  Attributes:
    groups: groups of `Case`s; the cases of a group are built in parallel.
    peers: names of the contestants beside ours, functions of this module.
    size: side of the images, in pixels.
    fields: network name -> fields of our module that differ from the paper's.
    floors: arguments of `floors.Floors`.
    rounds: number of timed rounds.
    calls: largest number of consecutive calls in a round.
    round_s: longest time of a contestant's round, unless one call takes longer.
    reserve_s: time for the timed rounds, after the builds of a group.
  """

  groups: tuple
  peers: tuple = _PEERS
  size: int = 224
  fields: dict = dataclasses.field(default_factory=dict)
  floors: dict = dataclasses.field(
    default_factory=lambda: {'gib': 2, 'side': 8192}
  )
  rounds: int = 6
  calls: int = 10
  round_s: float = 0.7
  reserve_s: float = 55


CARD = Sizes(
  groups=(
    (Case('coarse', 'step', 64), Case('class', 'step', 64)),
    (Case('coarse', 'step', 16), Case('class', 'step', 32)),
    (Case('coarse', 'forward', 64), Case('class', 'forward', 64)),
    (Case('fine', 'step', 64),),
  )
)
TINY = Sizes(
  groups=((Case('class', 'step', 2),), (Case('coarse', 'forward', 2),)),
  # PyTorch's networks exist at the paper's size only.
  peers=('straightforward', 'views', 'library_products'),
  size=64,
  fields={
    'coarse': {**_NARROW, **_NARROW_DECODER},
    'class': _NARROW,
  },
  floors={'gib': 2**-12, 'side': 256},
  rounds=2,
  calls=2,
  reserve_s=5,
)


def ours(case, size, **options):
  """Builds ours; `options` are those of `jax_contestant.Contestant`."""
  from benchmarks import jax_contestant

  problem = problem_lib.make(case.batch, size)
  return jax_contestant.Contestant(case.net, problem, mode=case.mode, **options)


def views(case, size, **options):
  """Builds ours without our Triton kernels."""
  os.environ['MTNET_JAX_TRITON'] = '0'
  return ours(case, size, **options)


def library_products(case, size, **options):
  """Builds ours with matrix products by cuBLAS, not by XLA's Triton kernels."""
  os.environ['XLA_FLAGS'] = (
    f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_enable_triton_gemm=false'
  )
  return ours(case, size, **options)


def straightforward(case, size, **options):
  """Builds the straightforward Flax port of ours."""
  from benchmarks import straightforward as straightforward_lib

  with straightforward_lib.port():
    return ours(case, size, **options)


def torch(case, size, *, dtype):
  """Builds PyTorch at its fastest: compiled, unless compilation fails."""
  import torch as torch_lib

  from benchmarks import torch_contestant

  torch_lib.backends.cudnn.benchmark = True
  torch_lib.set_float32_matmul_precision('high')
  problem = problem_lib.make(case.batch, size)
  options = {'mode': case.mode, 'dtype': dtype}
  try:
    return torch_contestant.Contestant(
      case.net, problem, **options, compiled=True
    )
  except Exception as error:
    # For instance without a C compiler. A slower peer is better than none.
    why = f'{type(error).__name__}: {error}'
  contestant = torch_contestant.Contestant(case.net, problem, **options)
  contestant.uncompiled = why
  return contestant


def profile(case, size, **options):
  """Builds ours with a profile; `options` are those of `profile.Profile`."""
  problem = problem_lib.make(case.batch, size)
  return profile_lib.Profile(case.net, problem, **options)
