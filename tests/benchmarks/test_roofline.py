"""What a compiled program costs is counted right."""

import importlib.util
import math
import sys

import jax
import jax.numpy as jnp
import main_job
import pytest

from benchmarks import cards
from benchmarks import hlo
from benchmarks import roofline
from benchmarks.gpu import kinds
from mtnet_jax.ops import target

_CUDA_PLUGINS = 'jax_cuda12_plugin', 'jax_cuda13_plugin'

# As XLA prints it: a product of rows that a fusion slices out of an array, a
# loop of three turns that updates a row in place, a strided convolution and its
# two gradients as cuDNN's calls.
_PROGRAM = """\
HloModule jit_f, is_scheduled=true

%fused (p.0: f32[10,8], p.1: f32[8,4]) -> f32[2,4] {
  %p.0 = f32[10,8]{1,0} parameter(0)
  %rows = f32[2,8]{1,0} slice(%p.0), slice={[0:2], [0:8]}
  %p.1 = f32[8,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[2,4]{1,0} dot(%rows, %p.1), lhs_contracting_dims={1}
}

%update (p.2: f32[10,8], p.3: f32[1,8], p.4: s32[]) -> f32[10,8] {
  %p.2 = f32[10,8]{1,0} parameter(0)
  %p.3 = f32[1,8]{1,0} parameter(1)
  %p.4 = s32[] parameter(2)
  ROOT %dus = f32[10,8]{1,0} dynamic-update-slice(%p.2, %p.3, %p.4, %p.4)
}

%body (p.5: (f32[10,8], f32[1,8], s32[])) -> (f32[10,8], f32[1,8], s32[]) {
  %p.5 = (f32[10,8]{1,0}, f32[1,8]{1,0}, s32[]) parameter(0)
  %a = f32[10,8]{1,0} get-tuple-element(%p.5), index=0
  %b = f32[1,8]{1,0} get-tuple-element(%p.5), index=1
  %i = s32[] get-tuple-element(%p.5), index=2
  %new = f32[10,8]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%update
  ROOT %t = (f32[10,8]{1,0}, f32[1,8]{1,0}, s32[]) tuple(%new, %b, %i)
}

ENTRY %main (x: f32[10,8], w: f32[8,4], v: bf16[3,9,9,5]) -> f32[2,4] {
  %x = f32[10,8]{1,0} parameter(0), metadata={op_name="x"}
  %w = f32[8,4]{1,0} parameter(1), metadata={op_name="w"}
  %v = bf16[3,9,9,5]{3,2,1,0} parameter(2)
  %k = bf16[6,3,3,5]{3,2,1,0} parameter(3)
  %start = (f32[10,8]{1,0}, f32[1,8]{1,0}, s32[]) parameter(4)
  %loop = (f32[10,8]{1,0}, /*index=1*/f32[1,8]{1,0}, s32[]) while(%start), \
condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %conv = (bf16[3,5,5,6]{3,2,1,0}, u8[0]{0}) custom-call(%v, %k), \
window={size=3x3 stride=2x2}, dim_labels=b01f_o01i->b01f, \
custom_call_target="__cudnn$convForward"
  %y = bf16[3,5,5,6]{3,2,1,0} get-tuple-element(%conv), index=0
  %dk = (bf16[6,3,3,5]{3,2,1,0}, u8[0]{0}) custom-call(%v, %y), \
window={size=3x3 stride=2x2}, dim_labels=b01f_o01i->b01f, \
custom_call_target="__cudnn$convBackwardFilter"
  %dv = (bf16[3,9,9,5]{3,2,1,0}, u8[0]{0}) custom-call(%y, %k), \
window={size=3x3 stride=2x2}, dim_labels=b01f_o01i->b01f, \
custom_call_target="__cudnn$convBackwardInput"
  %gemm = (f32[10,4]{1,0}, s8[64]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{\
"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  ROOT %out = f32[2,4]{1,0} fusion(%x, %w), kind=kCustom, calls=%fused, \
metadata={op_name="jit(step)/jvp(Net)/pointwise/dot_general"}
}
"""


def test_kernels_by_hand():
  found = {kernel.name: kernel for kernel in hlo.kernels(_PROGRAM)}
  assert set(found) == {'new', 'conv', 'dk', 'dv', 'gemm', 'out'}
  assert {name: kernel.times for name, kernel in found.items()} == {
    **dict.fromkeys(found, 1),
    'new': 3,
  }
  # Two of ten rows, all of w; two rows of four written.
  assert found['out'].bytes == 4 * (2 * 8 + 8 * 4 + 2 * 4)
  assert found['out'].flops == 2 * 2 * 8 * 4
  # A row and a number read, a row written.
  assert found['new'].bytes == 4 * (8 + 1 + 8)
  assert found['gemm'].flops == 2 * 10 * 8 * 4
  assert found['gemm'].bytes == 4 * (10 * 8 + 8 * 4 + 10 * 4)
  # 75 output pixels meet 9 taps of 5 channels and 6 features.
  for name in ('conv', 'dk', 'dv'):
    assert found[name].flops == 2 * 75 * 9 * 5 * 6, name
  pixels, kernel, out = 3 * 9 * 9 * 5, 6 * 9 * 5, 75 * 6
  assert found['conv'].bytes == 2 * (pixels + kernel + out)


def test_a_loop_that_nobody_counted_is_refused():
  with pytest.raises(ValueError, match='how often loop'):
    hlo.kernels(_PROGRAM.replace('known_trip_count', 'other'))


def test_a_program_of_this_machine():
  shapes = (30, 20), (20, 50)
  with target.portable():
    program = jax.jit(lambda a, b: jnp.tanh(a @ b)).lower(
      *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    )
  kernels = hlo.kernels(program.compile().as_text())
  assert sum(kernel.flops for kernel in kernels) == 2 * 30 * 20 * 50
  least = 4 * (30 * 20 + 20 * 50 + 30 * 50)
  assert least <= sum(kernel.bytes for kernel in kernels) <= 2 * least


@pytest.mark.parametrize(
  'source, flops, kind',
  (
    (
      'jit(step)/jvp(Net)/block1/sepconv1/depthwise/mul',
      0,
      'depthwise, forward',
    ),
    (
      'jit(step)/transpose(jvp(Net))/sepconv1/depthwise_bn/reduce',
      0,
      'batch norm, backward',
    ),
    ('jit(step)/transpose(jvp(Net))/pointwise/dot', 9, 'products, backward'),
    ('jit(step)/jvp(Net)/backbone/bn1/mul', 0, 'batch norm, forward'),
    ('jit(step)/jvp(Net)/jit(relu)/max', 0, 'others, forward'),
    ('jit(step)/mul', 0, 'optimizer and types'),
    ('', 0, 'optimizer and types'),
  ),
)
def test_kinds_by_the_layer_s_name(source, flops, kind):
  assert kinds.kind_of(hlo.Kernel('', source, 1, flops, 1)) == kind


def test_the_longer_of_computing_and_moving_counts():
  card = cards.CARDS['h100']
  # A millisecond of products, two of bytes; and the other way round, twice.
  moving = hlo.Kernel('', '', 1, int(989e9), int(6.7e9))
  computing = hlo.Kernel('', 'jit(f)/jvp(Net)/dot', 2, int(1978e9), int(3.35e9))
  rows = roofline.rows_of(
    [moving, computing], card, dtype='bfloat16', launch=1e-6
  )
  assert [row['kind'] for row in rows] == [
    'products, forward',
    'optimizer and types',
    'all',
  ]
  first, second, both = rows
  assert first['ms'] == pytest.approx(2 * 2 + 2e-3)
  assert second['ms'] == pytest.approx(2 + 1e-3)
  assert both['ms'] == pytest.approx(6 + 3e-3)
  assert both['count'] == 3
  assert both['gb'] == pytest.approx(6.7 + 2 * 3.35)
  assert both['tflop'] == pytest.approx(0.989 + 2 * 1.978)
  assert math.isclose(first['share'] + second['share'], 1)


@pytest.mark.slow
@pytest.mark.skipif(
  not any(map(importlib.util.find_spec, _CUDA_PLUGINS)),
  reason="needs JAX's CUDA plugin",
)
@pytest.mark.parametrize(
  'nets, options',
  (
    (('coarse', 'class', 'fine'), ['--dtype=bfloat16']),
    (('coarse', 'class', 'fine'), ['--dtype=float32']),
    # XLA's compiler ended the process here; see `pointwise.conv`.
    (('class',), ['--triton']),
  ),
)
def test_steps_compile_for_a_card_that_is_not_there(nets, options):
  """In a process of its own, which a crash of the compiler ends."""
  done = main_job.run(
    [sys.executable, '-m', 'benchmarks.roofline', *options]
    + ['--batch_size=2', '--size=64']
    + [f'--nets={name}' for name in nets]
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stdout.count('depthwise, backward') == len(nets)
