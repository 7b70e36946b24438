"""3 x 3 convolutions of few channels on CPUs: a network's first ones.

In float32 the loops of `native` compute them, where these are available.
Otherwise XLA does, except the kernel gradient, which is made of products of
matrices here where channels are not too few for these.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from mtnet_jax.ops import common
from mtnet_jax.ops.native import library

# Convolutions of at least so many channels in and out take Winograd's form. It
# is faster from 32 on, but in a network's first layers its rounding, ten times
# that of the sum over taps, grows through dozens of batch norms.
LIMIT = 128
# With at least so many in and out, products of matrices beat XLA's own loop.
_PRODUCT_CHANNELS = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x, kernel, stride, pad):
  """Plain convolution.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, C, F).
    stride: step between output pixels.
    pad: pixels of zeros on each side, 0 to 2.

  Returns:
    (B, H', W', F).
  """
  if not library.supports('conv3x3', x, kernel):
    return common.xla_conv(x, kernel, stride=stride, pad=pad)
  features = kernel.shape[-1:]
  unit, zero = jnp.ones(features, x.dtype), jnp.zeros(features, x.dtype)
  return native(x, kernel, unit, zero, stride=stride, pad=pad, relu=False)


def native(x, kernel, scale, shift, *, stride, pad, relu):
  """The same by `native`, times a scale plus a shift per feature.

  Args:
    x, kernel, stride, pad: as `conv` has them; `library.supports` both.
    scale, shift: (F,).
    relu: whether a ReLU follows.

  Returns:
    (B, H', W', F).
  """
  height, width = (
    max(0, (length + 2 * pad - 3) // stride + 1) for length in x.shape[1:3]
  )
  (out,) = library.call(
    'conv3x3',
    [(len(x), height, width, kernel.shape[-1])],
    x,
    kernel,
    scale,
    shift,
    stride=stride,
    pad=pad,
    relu=relu,
  )
  return out


def _forward(x, kernel, stride, pad):
  return conv(x, kernel, stride, pad), (x, kernel)


def _backward(stride, pad, residuals, grad):
  x, kernel = residuals
  return (
    _input_gradient(x, kernel, grad, stride, pad),
    _kernel_gradient(x, kernel, grad, stride, pad),
  )


def _input_gradient(x, kernel, grad, stride, pad):
  if stride == 1 and library.supports('conv3x3', grad, kernel):
    return conv(grad, kernel[::-1, ::-1].swapaxes(2, 3), 1, 2 - pad)
  return _by_xla(x, kernel, grad, stride, pad)[0]


def _kernel_gradient(x, kernel, grad, stride, pad):
  if library.supports('conv3x3_kernel_gradient', x, grad):
    (grad_kernel,) = library.call(
      'conv3x3_kernel_gradient', [kernel.shape], x, grad, stride=stride, pad=pad
    )
    return grad_kernel
  if stride == 1 and min(kernel.shape[2:]) >= _PRODUCT_CHANNELS:
    return kernel_gradient_by_products(
      common.wide(x), common.wide(grad), size=3, pad=pad
    ).astype(kernel.dtype)
  return _by_xla(x, kernel, grad, stride, pad)[1]


def _by_xla(x, kernel, grad, stride, pad):
  """Both gradients; XLA leaves out the one that is not used."""
  conv_ = functools.partial(common.xla_conv, stride=stride, pad=pad)
  return jax.vjp(conv_, x, kernel)[1](grad)


conv.defvjp(_forward, _backward)


def kernel_gradient_by_products(x, grad, *, size, pad):
  """Gradient by the kernel of a convolution with stride 1.

  Args:
    x: (B, H, W, C) float32, or wider.
    grad: (B, H + 2 pad - size + 1, W + 2 pad - size + 1, F), of the output.
    size: kernel side.
    pad: pixels of zeros on each side.

  Returns:
    (size, size, C, F).
  """
  height, width, features = grad.shape[1:]
  padding = (pad, pad, 0)
  x = common.pad(x, padding, padding)

  def of_image(index):
    """(size, size * C, F); the image and its views stay in the cache."""
    pixels, pixels_grad = (
      lax.dynamic_index_in_dim(batch, index, keepdims=False)
      for batch in (x, grad)
    )
    views = [pixels[:, j : j + width] for j in range(size)]
    # Written once; fused, it would be made anew for each row of the kernel.
    beside = lax.optimization_barrier(jnp.concatenate(views, -1))
    pixels_grad = pixels_grad.reshape(-1, features)
    return jnp.stack(
      [
        beside[i : i + height].reshape(-1, beside.shape[-1]).T @ pixels_grad
        for i in range(size)
      ]
    )

  total = lax.fori_loop(
    1, len(x), lambda index, sum_: sum_ + of_image(index), of_image(0)
  )
  return total.reshape(size, size, x.shape[-1], features)
