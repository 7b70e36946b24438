"""3 x 3 convolutions with few channels on CPUs: a network's first layers.

The C++ loops of `native` compute them in float32, if they are available.
Otherwise XLA does, except for the kernel gradient, which is computed here by
matrix products unless there are too few channels for these.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from mtnet_jax.ops import common
from mtnet_jax.ops.native import library

# Convolutions with at least this many input and output channels use Winograd's
# form. It is faster from 32 channels on, but its rounding error is ten times
# that of the sum over taps, and the error of a network's first layers grows
# through dozens of batch norms.
LIMIT = 128
# With at least this many input and output channels, matrix products are faster
# than XLA's own loop.
_PRODUCT_CHANNELS = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
  """Computes a 3 x 3 convolution.

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


def native(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array,
  shift: jax.Array,
  *,
  stride: int,
  pad: int,
  relu: bool,
) -> jax.Array:
  """Computes conv(x) * scale + shift, and a ReLU of it, with the C++ loop.

  `library.supports` x and kernel.

  Args:
    x: (B, H, W, C).
    kernel: (3, 3, C, F).
    scale: (F,).
    shift: (F,).
    stride: as in `conv`.
    pad: as in `conv`.
    relu: whether to apply the ReLU.

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
  """Returns both gradients; XLA removes the one that the caller ignores."""
  conv_ = functools.partial(common.xla_conv, stride=stride, pad=pad)
  return jax.vjp(conv_, x, kernel)[1](grad)


conv.defvjp(_forward, _backward)


def kernel_gradient_by_products(
  x: jax.Array, grad: jax.Array, *, size: int, pad: int
) -> jax.Array:
  """Computes the kernel gradient of a convolution by matrix products.

  Args:
    x: (B, H, W, C) float32 or wider.
    grad: (B, H + 2 pad - size + 1, W + 2 pad - size + 1, F), the gradient of
      the output; the stride is 1.
    size: kernel side.
    pad: pixels of zeros on each side.

  Returns:
    (size, size, C, F).
  """
  height, width, features = grad.shape[1:]
  padding = (pad, pad, 0)
  x = common.pad(x, padding, padding)

  # One image at a time, so that it and its views stay in the cache.
  def gradient_of_image(index):
    """Returns (size, size * C, F)."""
    pixels, pixels_grad = (
      lax.dynamic_index_in_dim(batch, index, keepdims=False)
      for batch in (x, grad)
    )
    views = [pixels[:, j : j + width] for j in range(size)]
    # Without the barrier, XLA would fuse the concatenation into each product,
    # and repeat it for every row of the kernel.
    neighbours = lax.optimization_barrier(jnp.concatenate(views, -1))
    pixels_grad = pixels_grad.reshape(-1, features)
    return jnp.stack(
      [
        neighbours[i : i + height].reshape(-1, neighbours.shape[-1]).T
        @ pixels_grad
        for i in range(size)
      ]
    )

  total = lax.fori_loop(
    1,
    len(x),
    lambda index, sum_: sum_ + gradient_of_image(index),
    gradient_of_image(0),
  )
  return total.reshape(size, size, x.shape[-1], features)
