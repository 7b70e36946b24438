"""Convolutions in bfloat16 round their sums once, at the end."""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops import conv
from mtnet_jax.ops import depthwise


def _out_and_gradients(form, x, kernel, grad):
  @fast_compile.jit
  def compute(x, kernel, grad):
    out, pull = jax.vjp(form, x, kernel)
    return out, *pull(grad)

  return compute(*(jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, grad)))


@pytest.mark.parametrize(
  'form, kernel_shape',
  (
    (depthwise.conv, (3, 3, 1, 1)),
    (functools.partial(conv.conv, dilation=2), (3, 3, 1, 1)),
  ),
  ids=('depthwise', 'dilated'),
)
def test_sums_in_bfloat16_are_rounded_once(form, kernel_shape):
  # The sum is 256 + 8 * 1. In bfloat16 it would stay at 256, because bfloat16
  # represents only even integers above 256.
  x = np.ones((1, 5, 5, 1))
  x[0, 2, 2, 0] = 256
  out, grad_x, _ = _out_and_gradients(form, x, np.ones(kernel_shape), x)
  assert out[0, 2, 2, 0] == 264
  assert grad_x[0, 2, 2, 0] == 264


def test_kernel_gradient_in_bfloat16_sums_in_float32():
  # The centre tap sums 4 * 32 * 32 = 4096 ones.
  x = np.ones((4, 32, 32, 1))
  for form, kernel_shape in (
    (depthwise.conv, (3, 3, 1, 1)),
    (functools.partial(conv.conv, dilation=2), (3, 3, 1, 1)),
  ):
    _, _, grad = _out_and_gradients(form, x, np.ones(kernel_shape), x)
    assert grad[1, 1, 0, 0] == 4096
