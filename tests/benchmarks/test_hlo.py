"""Tests the FLOPs and bytes that are counted from a program's text."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import hlo
from benchmarks.gpu import kinds
from mtnet_jax.ops import target

# A program as XLA prints it. It has a product of rows that a fusion slices out
# of an array, a loop of three iterations that updates a row in place, and a
# strided convolution and its two gradients as calls of cuDNN.
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


def test_kernels_match_values_by_hand():
  found = {kernel.name: kernel for kernel in hlo.kernels(_PROGRAM)}
  assert set(found) == {'new', 'conv', 'dk', 'dv', 'gemm', 'out'}
  assert {name: kernel.times for name, kernel in found.items()} == {
    **dict.fromkeys(found, 1),
    'new': 3,
  }
  # It reads two of ten rows and all of w, and writes two rows of four.
  assert found['out'].bytes == 4 * (2 * 8 + 8 * 4 + 2 * 4)
  assert found['out'].flops == 2 * 2 * 8 * 4
  # It reads a row and an index, and writes a row.
  assert found['new'].bytes == 4 * (8 + 1 + 8)
  assert found['gemm'].flops == 2 * 10 * 8 * 4
  assert found['gemm'].bytes == 4 * (10 * 8 + 8 * 4 + 10 * 4)
  # 75 output pixels, 9 taps, 5 channels and 6 features.
  for name in ('conv', 'dk', 'dv'):
    assert found[name].flops == 2 * 75 * 9 * 5 * 6, name
  pixels, kernel, out = 3 * 9 * 9 * 5, 6 * 9 * 5, 75 * 6
  assert found['conv'].bytes == 2 * (pixels + kernel + out)


def test_a_loop_of_unknown_length_raises():
  with pytest.raises(ValueError, match='iterations of loop'):
    hlo.kernels(_PROGRAM.replace('known_trip_count', 'other'))


def test_a_program_compiled_on_this_machine():
  shapes = (30, 20), (20, 50)
  with target.portable():
    program = jax.jit(lambda a, b: jnp.tanh(a @ b)).lower(
      *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    )
  kernels = hlo.kernels(program.compile().as_text())
  assert sum(kernel.flops for kernel in kernels) == 2 * 30 * 20 * 50
  min_bytes = 4 * (30 * 20 + 20 * 50 + 30 * 50)
  assert min_bytes <= sum(kernel.bytes for kernel in kernels) <= 2 * min_bytes


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
def test_kinds_follow_from_the_layer_names(source, flops, kind):
  assert kinds.kind_of(hlo.Kernel('', source, 1, flops, 1)) == kind
