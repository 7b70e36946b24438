"""What is traced for a machine is lowered for it, and for no other."""

import contextlib

import conv_parity
import jax
from jax import sharding
import jax.numpy as jnp
import pytest

from mtnet_jax.ops import conv as conv_lib
from mtnet_jax.ops import depthwise
from mtnet_jax.ops import pointwise
from mtnet_jax.ops import target

_KERNEL = '__gpu$xla.gpu.triton'


def _a_card():
  """A GPU that is not there, for which kernels of our own are lowered."""
  try:
    card = sharding.AbstractDevice(
      device_kind='NVIDIA H100 80GB HBM3', num_cores=132, platform='cuda'
    )
  except TypeError:
    # JAX 0.10 asks for none.
    return contextlib.nullcontext()
  mesh = sharding.AbstractMesh((1,), ('x',), abstract_device=card)
  return sharding.use_abstract_mesh(mesh)


def _lowered(function, *shapes, platform='cuda', dtype='bfloat16'):
  arguments = (jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
  with _a_card():
    traced = jax.jit(function).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def _gradients(x, kernel, grad):
  def conv(x, kernel):
    return depthwise.conv(x, kernel, relu=True)

  y, pull = jax.vjp(conv, x, kernel)
  return y, pull(grad)


_SHAPES = (2, 14, 14, 64), (3, 3, 1, 64), (2, 14, 14, 64)


@pytest.mark.filterwarnings('ignore:The Pallas Triton backend')
def test_a_card_gets_kernels_of_our_own():
  with target.cuda():
    text = _lowered(_gradients, *_SHAPES)
  # One forward, and one of both gradients.
  assert text.count(_KERNEL) == 2
  assert 'stablehlo.maximum' not in text
  with target.cuda():
    assert _KERNEL not in _lowered(_gradients, *_SHAPES, platform='cpu')
    assert _KERNEL not in _lowered(_gradients, *_SHAPES, dtype='float16')


def test_no_other_program_has_them(monkeypatch):
  assert _KERNEL not in _lowered(_gradients, *_SHAPES)
  with target.portable():
    assert _KERNEL not in _lowered(_gradients, *_SHAPES)
  monkeypatch.setenv('MTNET_JAX_TRITON', '0')
  with target.cuda():
    assert not target.may_be_cuda()


def test_this_machine_is_a_cpu():
  assert target.is_this_cpu() and not target.may_be_cuda()
  with target.cuda():
    assert not target.is_this_cpu() and target.may_be_cuda()
    with target.portable():
      assert not target.is_this_cpu() and not target.may_be_cuda()


def test_a_program_for_any_machine_has_none_where_a_card_is(monkeypatch):
  monkeypatch.setattr(target, '_has_cuda', lambda: True)
  assert target.may_be_cuda()
  with target.portable():
    assert not target.may_be_cuda()
    assert _KERNEL not in _lowered(_gradients, *_SHAPES)


def test_a_product_with_one_column_stands_alone_on_a_card():
  shapes = (2, 8, 8, 16), (1, 1, 16, 1)
  assert 'optimization_barrier' not in _lowered(pointwise.conv, *shapes)
  with target.cuda():
    assert 'optimization_barrier' in _lowered(pointwise.conv, *shapes)


@pytest.mark.parametrize('rate, convolutions', ((6, 1), (12, 0), (18, 0)))
def test_a_card_multiplies_what_dilated_taps_touch(rate, convolutions):
  def conv(x, kernel):
    return conv_lib.conv(x, kernel, dilation=rate)

  text = _lowered(conv, (2, 14, 14, 16), (3, 3, 16, 8))
  assert text.count('stablehlo.convolution') == convolutions
  # At rate 18 the centre tap alone; at rate 12 every tap reaches two rows.
  assert text.count('stablehlo.dot_general') == {6: 0, 12: 9, 18: 1}[rate]


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
@pytest.mark.parametrize('rate', (12, 18))
def test_dilated_convolutions_of_a_card_are_convolutions(rate, dtype):
  def reference(x, kernel):
    return conv_parity.xla_conv(x, kernel, dilation=rate, pad=rate)

  conv_parity.assert_same(
    conv_lib._dilated_forms(rate).cuda,
    reference,
    (2, 14, 14, 5),
    (3, 3, 5, 7),
    dtype=dtype,
  )


def test_products_of_short_factors_have_wide_sums():
  x = jnp.ones((1, 512))
  # Of bfloat16 sums 256 + 1 would be 256.
  matrix = jnp.ones((512, 1)).at[0].set(256)
  product = pointwise.product_of(x, matrix, jnp.bfloat16)
  assert product.dtype == 'float32'
  assert float(product[0, 0]) == 256 + 511
