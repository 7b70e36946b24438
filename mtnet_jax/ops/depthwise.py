"""Depthwise convolution: each channel has its own kernel.

On CPUs, the C++ loops of `native` compute 3 x 3 convolutions in float32, if
they are available. Otherwise a convolution is a sum over k * k shifted views of
the padded input, each times a weight per channel, which XLA compiles to one
loop.

On accelerators, XLA fuses this loop with the padding and, in the backward pass,
with the gradient of the preceding ReLU; the kernel gradient is one sum per tap.
For NVIDIA GPUs there are kernels in `depthwise_triton`.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from mtnet_jax.ops import common
from mtnet_jax.ops import depthwise_triton
from mtnet_jax.ops import target
from mtnet_jax.ops.native import library


def conv(
  x: jax.Array,
  kernel: jax.Array,
  stride: int = 1,
  dilation: int = 1,
  *,
  relu: bool = False,
) -> jax.Array:
  """Computes a depthwise convolution with "same" padding.

  Args:
    x: (B, H, W, C).
    kernel: (k, k, 1, C), k odd.
    stride: step between output pixels.
    dilation: step between taps.
    relu: whether to convolve relu(x) instead of x.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), C).
  """
  if target.may_be_cuda() and depthwise_triton.supports(x, kernel):
    return common.choose(x, kernel, _forms_with_kernels(stride, dilation, relu))
  x = jax.nn.relu(x) if relu else x
  if target.is_this_cpu():
    # Not through `common.choose`, which would not keep the padded input for the
    # backward pass.
    return _on_cpu(x, kernel, stride, dilation)
  return common.choose(x, kernel, forms(stride, dilation))


@functools.cache
def forms(stride: int, dilation: int) -> common.Forms:
  """Returns the forms of (x, kernel) -> y without GPU kernels of our own."""
  return common.Forms(
    cpu=lambda x, kernel: _on_cpu(x, kernel, stride, dilation),
    other=lambda x, kernel: _fused(x, kernel, stride, dilation),
  )


@functools.cache
def _forms_with_kernels(stride, dilation, relu):
  """Returns the forms of (x, kernel) -> y with GPU kernels of our own.

  `forms` has no ReLU, so they include it.
  """
  plain = forms(stride, dilation)

  def with_relu(form):
    return lambda x, kernel: form(jax.nn.relu(x) if relu else x, kernel)

  return common.Forms(
    cpu=with_relu(plain.cpu),
    other=with_relu(plain.other),
    cuda=lambda x, kernel: _by_kernels(x, kernel, stride, dilation, relu),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _on_cpu(x, kernel, stride, dilation):
  return _forward(x, kernel, stride, dilation)[0]


def has_loop(stride: int, dilation: int) -> bool:
  """Whether the C++ loops support 3 x 3 convolutions with these steps."""
  return stride == 1 or (stride, dilation) == (2, 1)


def _is_native(x, kernel, stride, dilation):
  return (
    kernel.shape[0] == 3
    and has_loop(stride, dilation)
    and library.supports('depthwise_forward', x, kernel)
  )


def _out_hw(x, stride):
  return tuple(-(-size // stride) for size in x.shape[1:3])


def _forward(x, kernel, stride, dilation):
  if _is_native(x, kernel, stride, dilation):
    (out,) = library.call(
      'depthwise_forward',
      [(x.shape[0], *_out_hw(x, stride), x.shape[3])],
      x,
      kernel,
      stride=stride,
      dilation=dilation,
    )
    return out, (x, kernel)
  padded = _pad_once(x, *_border(kernel, dilation))
  out = _multiply_add(
    padded, kernel, _out_hw(x, stride), stride=stride, dilation=dilation
  )
  # The backward pass reads the padded input again.
  return out, (padded, kernel)


def _backward(stride, dilation, residuals, grad):
  x, kernel = residuals
  if _is_native(x, kernel, stride, dilation):
    return tuple(
      library.call(
        'depthwise_backward',
        [x.shape, kernel.shape],
        x,
        kernel,
        grad,
        stride=stride,
        dilation=dilation,
      )
    )
  padded = x  # `_forward` has stored the padded input.
  grad_x = _input_gradient(
    grad, kernel, padded.shape[1:3], stride=stride, dilation=dilation
  )
  grad_kernel = _kernel_gradient(
    padded, grad, size=kernel.shape[0], stride=stride, dilation=dilation
  )
  return grad_x, grad_kernel.reshape(kernel.shape).astype(kernel.dtype)


_on_cpu.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _fused(x, kernel, stride, dilation):
  padded = common.pad(x, *_border(kernel, dilation))
  return _multiply_add(
    padded, kernel, _out_hw(x, stride), stride=stride, dilation=dilation
  )


def _fused_forward(x, kernel, stride, dilation):
  return _fused(x, kernel, stride, dilation), (x, kernel)


def _fused_backward(stride, dilation, residuals, grad):
  x, kernel = residuals
  padded = common.pad(x, *_border(kernel, dilation))
  grad_x = _input_gradient(
    grad,
    kernel,
    padded.shape[1:3],
    stride=stride,
    dilation=dilation,
    pad=common.pad,
  )
  views = common.shifted_views(
    padded, len(kernel), grad.shape[1:3], stride=stride, dilation=dilation
  )
  wide = common.wide(grad)
  # XLA fuses two of these sums at a time into one pass.
  sums = [jnp.sum(common.wide(view) * wide, (0, 1, 2)) for view in views]
  grad_kernel = jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
  return grad_x, grad_kernel


_fused.defvjp(_fused_forward, _fused_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_kernels(x, kernel, stride, dilation, relu):
  return depthwise_triton.conv(
    x, kernel, stride=stride, dilation=dilation, relu=relu
  )


def _kernels_forward(x, kernel, stride, dilation, relu):
  return _by_kernels(x, kernel, stride, dilation, relu), (x, kernel)


def _kernels_backward(stride, dilation, relu, residuals, grad):
  return depthwise_triton.gradients(
    *residuals, grad, stride=stride, dilation=dilation, relu=relu
  )


_by_kernels.defvjp(_kernels_forward, _kernels_backward)


def _pad_once(x, rows, columns):
  # Without the barrier, XLA's CPU backend fuses the operations that produce x,
  # such as a batch norm, into the loop and repeats them for every tap.
  return lax.optimization_barrier(common.pad(x, rows, columns))


def _border(kernel, dilation):
  """Returns the padding of rows and of columns, for `common.pad`."""
  pad = dilation * (kernel.shape[0] // 2)
  return (pad, pad, 0), (pad, pad, 0)


def _multiply_add(padded, kernel, out_hw, *, stride=1, dilation):
  taps = common.wide(kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]))
  views = common.shifted_views(
    padded, len(kernel), out_hw, stride=stride, dilation=dilation
  )
  total = functools.reduce(
    jnp.add,
    (common.wide(view) * tap for view, tap in zip(views, taps, strict=True)),
  )
  return total.astype(padded.dtype)


def _input_gradient(
  grad, kernel, padded_hw, *, stride, dilation, pad=_pad_once
):
  """Convolves the output gradient, spread by the stride, with the kernel.

  The kernel is rotated by 180 degrees, and stride - 1 zeros are inserted
  between the pixels of the output gradient.
  """
  reach = dilation * (kernel.shape[0] - 1)
  border = dilation * (kernel.shape[0] // 2)
  in_hw = [length - 2 * border for length in padded_hw]

  def spread(out_size, in_size):
    spread_size = (out_size - 1) * stride + 1
    return (reach - border, in_size + border - spread_size, stride - 1)

  return _multiply_add(
    pad(grad, *map(spread, grad.shape[1:3], in_hw)),
    kernel[::-1, ::-1],
    in_hw,
    dilation=dilation,
  )


def _kernel_gradient(padded, grad, *, size, stride, dilation):
  """Sums the products of input and output gradient for each tap: (k * k, C).

  First sums over images, two at a time, for each tap and pixel, and then over
  pixels. Two images and their sums fit into the cache, and XLA's CPU backend
  generates fast loops for them. It does not for a reduction over slices, or for
  four images at a time.
  """

  def products(index):
    """Returns the products of one image: k * k arrays (H', W', C)."""
    image, image_grad = (
      lax.dynamic_slice_in_dim(batch, index, 1) for batch in (padded, grad)
    )
    views = common.shifted_views(
      image, size, grad.shape[1:3], stride=stride, dilation=dilation
    )
    return [common.wide(view[0]) * common.wide(image_grad[0]) for view in views]

  def add(left, right):
    return list(map(jnp.add, left, right))

  count = len(padded)
  # The sums start with the first image or two, because XLA would make k * k
  # copies of zeros.
  sums = products(0)
  if count > 2 and count % 2 == 0:
    sums = add(sums, products(1))
  block_size = 2 if count > 2 else 1
  first = count - (count - 1) // block_size * block_size

  def add_images(block, sums):
    start = first + block * block_size
    return functools.reduce(
      add, (products(start + image) for image in range(block_size)), sums
    )

  if first < count:
    # The barrier hides the number of iterations: XLA would unroll a loop of one
    # iteration, and then generate slow loops for everything.
    blocks = lax.optimization_barrier(jnp.int32((count - first) // block_size))
    sums = lax.fori_loop(0, blocks, add_images, sums)
  return jnp.stack([jnp.sum(one, (0, 1)) for one in sums])
