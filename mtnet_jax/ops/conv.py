"""Convolutions and resizing in NHWC, each in its fastest exact form.

XLA's convolutions are slow on CPUs if they are depthwise or dilated: with them,
these networks take five times as long as in PyTorch. The forms below compute
the same sums:

* depthwise: see `depthwise`.
* pointwise: a matrix product.
* 3 x 3 with many channels: Winograd's form, see `winograd`. With fewer
  channels: see `few_channels`.
* dilated: a matrix product per tap, over only those rows and columns where the
  tap lies inside the image. At rate 18 on a 14 x 14 grid this is the centre tap
  alone. (GPUs use this form if at most a quarter of all products lie inside,
  and XLA's convolution otherwise.)

Sums are computed in float32 and rounded to the compute type once, as in XLA's
own convolutions: a sum in bfloat16 would lose digits at every tap. Inputs in
float64, which comparisons with other code use, stay in float64.

Paddings are symmetric, and "same" for odd kernels, except where an argument
says otherwise. Parameters keep Flax's HWIO layout, so that checkpoints do not
depend on how a convolution is computed.
"""

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.ops import common
from mtnet_jax.ops import few_channels
from mtnet_jax.ops import pointwise
from mtnet_jax.ops import winograd


def conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  dilation: int = 1,
  padding: int | None = None,
) -> jax.Array:
  """Computes a convolution.

  Args:
    x: (B, H, W, C).
    kernel: (k, k, C, F), k odd.
    stride: step between output pixels.
    dilation: step between taps.
    padding: pixels of zeros on each side; None for "same".

  Returns:
    (B, H', W', F).

  Raises:
    ValueError: dilation is combined with a stride or a padding. No layer of
      these networks needs that.
  """
  if kernel.shape[:2] == (1, 1) and not padding:
    return pointwise.conv(x, kernel, stride=stride)
  if dilation > 1:
    if stride > 1 or padding is not None:
      raise ValueError(
        f'dilation {dilation} is only supported with stride 1 and padding=None'
        f' ("same"), not with stride {stride} and padding {padding}.'
      )
    return common.choose(x, kernel, _dilated_forms(dilation))
  pad = kernel.shape[0] // 2 if padding is None else padding
  if kernel.shape[0] == 3 and pad <= 2:
    if min(kernel.shape[2:]) < few_channels.LIMIT:
      return common.choose(x, kernel, _few_channels_forms(stride, pad))
    if stride == 1:
      return common.choose(x, kernel, _winograd_forms(pad))
  return common.xla_conv(x, kernel, stride=stride, pad=pad)


def _valid_range(offset, size):
  """Returns [start, stop) of output rows whose tap at this offset is inside."""
  return max(0, -offset), min(size, size - offset)


def _dilated_taps(x, kernel, *, dilation, mix_channels=pointwise.mix_channels):
  """Computes a matrix product per tap, only where the tap is inside."""
  _, height, width, _ = x.shape
  half = kernel.shape[0] // 2
  total = None
  for i in range(kernel.shape[0]):
    dy = (i - half) * dilation
    top, bottom = _valid_range(dy, height)
    for j in range(kernel.shape[1]):
      dx = (j - half) * dilation
      left, right = _valid_range(dx, width)
      if top >= bottom or left >= right:
        continue
      view = x[:, top + dy : bottom + dy, left + dx : right + dx]
      part = common.pad(
        mix_channels(view, kernel[i, j]),
        (top, height - bottom, 0),
        (left, width - right, 0),
      )
      total = part if total is None else total + part
  return total


def _dilated_on_cpu(x, kernel, *, dilation):
  product = _dilated_taps(
    common.wide(x), common.wide(kernel), dilation=dilation
  )
  return product.astype(x.dtype)


def _dilated_on_cuda(x, kernel, *, dilation):
  """Computes a product per tap if most products fall outside of the image."""
  if _valid_share(x.shape[1:3], len(kernel), dilation) > 0.25:
    return _dilated_by_xla(x, kernel, dilation=dilation)

  def mix_channels(view, matrix):
    product = pointwise.product_of(
      view.reshape(-1, view.shape[-1]), matrix, x.dtype
    )
    return product.reshape(*view.shape[:-1], matrix.shape[-1])

  total = _dilated_taps(
    common.wide(x),
    common.wide(kernel),
    dilation=dilation,
    mix_channels=mix_channels,
  )
  return total.astype(x.dtype)


def _valid_share(hw, size, dilation):
  """Returns the share of all products whose input pixel is inside."""
  share = 1
  for length in hw:
    num_valid = 0
    for i in range(size):
      start, stop = _valid_range((i - size // 2) * dilation, length)
      num_valid += max(stop - start, 0)
    share *= num_valid / (size * length)
  return share


def _dilated_by_xla(x, kernel, *, dilation):
  pad = dilation * (len(kernel) // 2)
  return common.xla_conv(x, kernel, dilation=dilation, pad=pad)


@functools.cache
def _dilated_forms(dilation):
  cpu, other, cuda = (
    functools.partial(form, dilation=dilation)
    for form in (_dilated_on_cpu, _dilated_by_xla, _dilated_on_cuda)
  )
  return common.Forms(cpu=cpu, other=other, cuda=cuda)


@functools.cache
def _winograd_forms(pad):
  def cpu(x, kernel):
    product = winograd.conv(common.wide(x), common.wide(kernel), pad)
    return product.astype(x.dtype)

  return common.Forms(
    cpu=cpu, other=functools.partial(common.xla_conv, pad=pad)
  )


@functools.cache
def _few_channels_forms(stride, pad):
  return common.Forms(
    cpu=lambda x, kernel: few_channels.conv(x, kernel, stride, pad),
    other=functools.partial(common.xla_conv, stride=stride, pad=pad),
  )


@functools.cache
def _align_corners_matrix(in_size, out_size):
  """Returns weights (out_size, in_size) that map end points to end points."""
  if out_size == 1 or in_size == 1:
    positions = np.zeros(out_size)
  else:
    positions = np.arange(out_size) * (in_size - 1) / (out_size - 1)
  distances = np.abs(positions[:, None] - np.arange(in_size))
  return np.maximum(0, 1 - distances).astype(np.float32)


def resize_align_corners(x: jax.Array, size_hw: Sequence[int]) -> jax.Array:
  """Resizes bilinearly, and maps corner pixels onto corner pixels.

  The result is that of PyTorch's `interpolate(..., align_corners=True)`.

  Args:
    x: (B, H, W, C).
    size_hw: (H', W').

  Returns:
    (B, H', W', C).
  """
  rows = _align_corners_matrix(x.shape[1], size_hw[0])
  columns = _align_corners_matrix(x.shape[2], size_hw[1])
  # In full precision, because rounded weights would shift the positions.
  einsum = functools.partial(jnp.einsum, precision='highest')
  resized = einsum('oh,bhwc->bowc', rows, common.wide(x))
  resized = einsum('ow,bhwc->bhoc', columns, resized)
  return resized.astype(x.dtype)
