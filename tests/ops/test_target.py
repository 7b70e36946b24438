"""Programs contain the forms of the machine that they are traced for."""

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


def _abstract_gpu():
  """Describes a GPU to lower kernels for, without having one."""
  try:
    gpu = sharding.AbstractDevice(
      device_kind='NVIDIA H100 80GB HBM3', num_cores=132, platform='cuda'
    )
  except TypeError:
    # JAX 0.10 needs no description.
    return contextlib.nullcontext()
  mesh = sharding.AbstractMesh((1,), ('x',), abstract_device=gpu)
  return sharding.use_abstract_mesh(mesh)


def _lowered(function, *shapes, platform='cuda', dtype='bfloat16'):
  arguments = (jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
  with _abstract_gpu():
    traced = jax.jit(function).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def _gradients(x, kernel, grad):
  def conv(x, kernel):
    return depthwise.conv(x, kernel, relu=True)

  y, pull = jax.vjp(conv, x, kernel)
  return y, pull(grad)


_SHAPES = (2, 14, 14, 64), (3, 3, 1, 64), (2, 14, 14, 64)


@pytest.mark.filterwarnings('ignore:The Pallas Triton backend')
def test_programs_for_a_gpu_have_our_kernels():
  with target.cuda():
    text = _lowered(_gradients, *_SHAPES)
  # One kernel for the forward pass, and one for both gradients.
  assert text.count(_KERNEL) == 2
  assert 'stablehlo.maximum' not in text
  with target.cuda():
    assert _KERNEL not in _lowered(_gradients, *_SHAPES, platform='cpu')
    assert _KERNEL not in _lowered(_gradients, *_SHAPES, dtype='float16')


def test_other_programs_do_not_have_our_kernels(monkeypatch):
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


def test_portable_programs_have_no_kernels_even_with_a_gpu(monkeypatch):
  monkeypatch.setattr(target, '_has_cuda', lambda: True)
  assert target.may_be_cuda()
  with target.portable():
    assert not target.may_be_cuda()
    assert _KERNEL not in _lowered(_gradients, *_SHAPES)


def test_a_product_with_one_column_is_not_fused_on_a_gpu():
  shapes = (2, 8, 8, 16), (1, 1, 16, 1)
  assert 'optimization_barrier' not in _lowered(pointwise.conv, *shapes)
  with target.cuda():
    assert 'optimization_barrier' in _lowered(pointwise.conv, *shapes)


@pytest.mark.parametrize('rate, convolutions', ((6, 1), (12, 0), (18, 0)))
def test_highly_dilated_convolutions_are_products_on_a_gpu(rate, convolutions):
  def conv(x, kernel):
    return conv_lib.conv(x, kernel, dilation=rate)

  text = _lowered(conv, (2, 14, 14, 16), (3, 3, 16, 8))
  assert text.count('stablehlo.convolution') == convolutions
  # At rate 18 only the centre tap is inside the grid. At rate 12 all nine are,
  # the outer ones in two rows or columns.
  assert text.count('stablehlo.dot_general') == {6: 0, 12: 9, 18: 1}[rate]


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
@pytest.mark.parametrize('rate', (12, 18))
def test_dilated_convolutions_on_a_gpu_agree_with_xla_s(rate, dtype):
  def reference(x, kernel):
    return conv_parity.xla_conv(x, kernel, dilation=rate, pad=rate)

  conv_parity.assert_same(
    conv_lib._dilated_forms(rate).cuda,
    reference,
    (2, 14, 14, 5),
    (3, 3, 5, 7),
    dtype=dtype,
  )


def test_products_of_rounded_factors_sum_in_float32():
  x = jnp.ones((1, 512))
  # In bfloat16, 256 + 1 would be 256.
  matrix = jnp.ones((512, 1)).at[0].set(256)
  product = pointwise.product_of(x, matrix, jnp.bfloat16)
  assert product.dtype == 'float32'
  assert float(product[0, 0]) == 256 + 511
