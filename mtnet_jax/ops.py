"""Convolutions, pooling and resizing in NHWC, each in its fastest exact form.

XLA lowers depthwise and dilated convolutions badly on CPUs: a straightforward
port of these networks takes five times PyTorch's time there. The forms below
compute the same sums:

* depthwise: the nine shifted views of the padded input times a per-channel
  weight, added up. XLA fuses this into one loop. The kernel gradient is one
  variadic reduction, so that the input is read once and not nine times.
* pointwise: a matrix product.
* dilated: a matrix product per tap, over the rows and columns where that tap
  touches data. At rate 18 on a 14 x 14 grid only the centre tap does.

Sums are kept in float32 and rounded once to the compute type, as XLA's own
convolutions do; a sum kept in bfloat16 would lose digits at every tap. What
comes in float64, as comparisons with other code do, stays in float64.

All paddings are symmetric and "same" for odd kernels, except where an argument
says otherwise. Parameters keep Flax's HWIO layout, so that checkpoints do not
depend on how a convolution is computed.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def _wide(x):
  """x in the type of sums: float32, or wider if x is."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pointwise_conv(x, kernel, *, stride=1):
  """1 x 1 convolution as a matrix product.

  Args:
    x: (B, H, W, C).
    kernel: (1, 1, C, F).
    stride: every stride-th row and column is kept.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), F).
  """
  if stride > 1:
    x = x[:, ::stride, ::stride]
  return jnp.einsum('bhwc,cf->bhwf', x, kernel[0, 0])


def depthwise_conv(x, kernel, *, stride=1, dilation=1):
  """Depthwise convolution with an odd square kernel and "same" padding.

  Args:
    x: (B, H, W, C).
    kernel: (k, k, 1, C).
    stride: step between output pixels.
    dilation: step between taps.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), C).
  """
  return _depthwise(x, kernel, stride, dilation)


def _pad_spatial(x, low_high_interior_h, low_high_interior_w):
  return lax.pad(
    x,
    jnp.zeros((), x.dtype),
    ((0, 0, 0), low_high_interior_h, low_high_interior_w, (0, 0, 0)),
  )


def _pad_once(x, low_high_interior_h, low_high_interior_w):
  # Without the barrier, XLA's CPU backend fuses what made x (a batch norm,
  # say) into the loop over the taps and computes it once per tap.
  return lax.optimization_barrier(
    _pad_spatial(x, low_high_interior_h, low_high_interior_w)
  )


def _shifted_views(padded, *, size, stride, dilation, out_hw):
  """The k * k views of a padded input that meet each tap, row by row."""
  height, width = out_hw
  for i in range(size):
    for j in range(size):
      top, left = i * dilation, j * dilation
      yield padded[
        :,
        top : top + (height - 1) * stride + 1 : stride,
        left : left + (width - 1) * stride + 1 : stride,
      ]


def _multiply_add(padded, kernel, *, stride, dilation, out_hw):
  taps = _wide(kernel.reshape(-1, kernel.shape[-1]))
  views = _shifted_views(
    padded,
    size=kernel.shape[0],
    stride=stride,
    dilation=dilation,
    out_hw=out_hw,
  )
  total = functools.reduce(
    jnp.add,
    (_wide(view) * tap for view, tap in zip(views, taps, strict=True)),
  )
  return total.astype(padded.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, dilation):
  pad = dilation * (kernel.shape[0] // 2)
  out_hw = (-(-x.shape[1] // stride), -(-x.shape[2] // stride))
  padded = _pad_once(x, (pad, pad, 0), (pad, pad, 0))
  return _multiply_add(
    padded, kernel, stride=stride, dilation=dilation, out_hw=out_hw
  )


def _depthwise_fwd(x, kernel, stride, dilation):
  return _depthwise(x, kernel, stride, dilation), (x, kernel)


def _depthwise_bwd(stride, dilation, residuals, grad):
  x, kernel = residuals
  size = kernel.shape[0]
  pad = dilation * (size // 2)
  out_hw = grad.shape[1:3]

  # Input gradient: the output gradient, spread over the stride, meets the
  # kernel turned by 180 degrees.
  def spread(out_size, in_size):
    reach = dilation * (size - 1) - pad
    spread_size = (out_size - 1) * stride + 1
    return (reach, in_size + pad - spread_size, stride - 1)

  grad_x = _multiply_add(
    _pad_once(
      grad, spread(out_hw[0], x.shape[1]), spread(out_hw[1], x.shape[2])
    ),
    kernel[::-1, ::-1],
    stride=1,
    dilation=dilation,
    out_hw=x.shape[1:3],
  )

  # Kernel gradient: all k * k sums in one pass over the input.
  padded = _pad_once(x, (pad, pad, 0), (pad, pad, 0))
  wide_grad = _wide(grad)
  products = tuple(
    _wide(view) * wide_grad
    for view in _shifted_views(
      padded, size=size, stride=stride, dilation=dilation, out_hw=out_hw
    )
  )
  sums = lax.reduce(
    products,
    (jnp.zeros((), wide_grad.dtype),) * len(products),
    lambda left, right: tuple(map(jnp.add, left, right)),
    (0, 1, 2),
  )
  grad_kernel = jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
  return grad_x, grad_kernel


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def conv(x, kernel, *, stride=1, dilation=1, padding=None):
  """Plain convolution.

  Args:
    x: (B, H, W, C).
    kernel: (k, k, C, F), k odd.
    stride: step between output pixels.
    dilation: step between taps; with a stride of 1 only.
    padding: pixels of zeros on each side; None for "same".

  Returns:
    (B, H', W', F).

  Raises:
    ValueError: dilation together with a stride or another padding, which no
      layer of these networks has.
  """
  if kernel.shape[:2] == (1, 1) and not padding:
    return pointwise_conv(x, kernel, stride=stride)
  if dilation > 1:
    if stride > 1 or padding is not None:
      raise ValueError(
        f'dilation {dilation} goes with stride 1 and "same" padding only;'
        f' got stride {stride}, padding {padding}.'
      )
    return _dilated(x, kernel, dilation)
  pad = kernel.shape[0] // 2 if padding is None else padding
  return _xla_conv(x, kernel, stride=stride, pad=pad)


def _xla_conv(x, kernel, *, stride=1, dilation=1, pad):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=_DIMENSIONS,
  )


def _live(offset, size):
  """Output rows [start, stop) whose tap at this offset lies inside."""
  return max(0, -offset), min(size, size - offset)


def _dilated_taps(x, kernel, *, dilation):
  """A matrix product per tap, only where the tap touches data."""
  dtype = x.dtype
  x, kernel = _wide(x), _wide(kernel)
  _, height, width, _ = x.shape
  half = kernel.shape[0] // 2
  total = None
  for i in range(kernel.shape[0]):
    dy = (i - half) * dilation
    top, bottom = _live(dy, height)
    for j in range(kernel.shape[1]):
      dx = (j - half) * dilation
      left, right = _live(dx, width)
      if top >= bottom or left >= right:
        continue
      view = x[:, top + dy : bottom + dy, left + dx : right + dx]
      part = _pad_spatial(
        jnp.einsum('bhwc,cf->bhwf', view, kernel[i, j]),
        (top, height - bottom, 0),
        (left, width - right, 0),
      )
      total = part if total is None else total + part
  return total.astype(dtype)


# The choice is made where the program is lowered, not where it is traced, so
# that one exported program serves several platforms. The gradient is stated
# by hand because differentiating through the choice would keep residuals of
# every platform.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dilated(x, kernel, dilation):
  taps, xla = _dilated_forms(kernel.shape[0], dilation)
  return lax.platform_dependent(x, kernel, cpu=taps, default=xla)


def _dilated_forms(size, dilation):
  return (
    functools.partial(_dilated_taps, dilation=dilation),
    functools.partial(_xla_conv, dilation=dilation, pad=dilation * (size // 2)),
  )


def _dilated_fwd(x, kernel, dilation):
  return _dilated(x, kernel, dilation), (x, kernel)


def _dilated_bwd(dilation, residuals, grad):
  x, kernel = residuals

  def gradients_of(form):
    return lambda x, kernel, grad: jax.vjp(form, x, kernel)[1](grad)

  taps, xla = map(gradients_of, _dilated_forms(kernel.shape[0], dilation))
  return lax.platform_dependent(x, kernel, grad, cpu=taps, default=xla)


_dilated.defvjp(_dilated_fwd, _dilated_bwd)


def max_pool(x, *, size=3, stride=2, padding='symmetric'):
  """Max-pooling.

  Args:
    x: (B, H, W, C).
    size: window side, odd.
    stride: step between windows.
    padding: 'symmetric' pads size // 2 on both sides, as PyTorch ports do;
      'same' pads as Keras does, less at the start where the size is even.

  Returns:
    (B, ceil(H / stride), ceil(W / stride), C).
  """
  if padding == 'same':
    pads = lax.padtype_to_pads(
      x.shape[1:3], (size, size), (stride, stride), 'SAME'
    )
  elif padding == 'symmetric':
    pads = ((size // 2, size // 2),) * 2
  else:
    raise ValueError(
      f"pooling padding is 'same' or 'symmetric', not {padding!r}."
    )
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    (1, size, size, 1),
    (1, stride, stride, 1),
    ((0, 0), *pads, (0, 0)),
  )


@functools.cache
def _align_corners_matrix(in_size, out_size):
  """(out_size, in_size) weights of linear interpolation, ends on ends."""
  if out_size == 1 or in_size == 1:
    positions = np.zeros(out_size)
  else:
    positions = np.arange(out_size) * (in_size - 1) / (out_size - 1)
  distances = np.abs(positions[:, None] - np.arange(in_size))
  return np.maximum(0, 1 - distances).astype(np.float32)


def resize_align_corners(x, size_hw):
  """Bilinear resize that maps corner pixels onto corner pixels.

  Args:
    x: (B, H, W, C).
    size_hw: (H', W').

  Returns:
    (B, H', W', C), as PyTorch's `interpolate(..., align_corners=True)`.
  """
  rows = _align_corners_matrix(x.shape[1], size_hw[0])
  columns = _align_corners_matrix(x.shape[2], size_hw[1])
  # Full precision: a shorter type would move the weights, not only the values.
  einsum = functools.partial(jnp.einsum, precision='highest')
  resized = einsum('oh,bhwc->bowc', rows, _wide(x))
  resized = einsum('ow,bhwc->bhoc', columns, resized)
  return resized.astype(x.dtype)
