"""XLA's own convolution, in our layout."""

from jax import lax

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv(x, kernel, *, stride=1, dilation=1, pad):
  """Convolution as XLA lowers it.

  Args:
    x: (B, H, W, C).
    kernel: (k, k, C, F).
    stride: step between output pixels.
    dilation: step between taps.
    pad: pixels of zeros on each side.

  Returns:
    (B, H', W', F).
  """
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=_DIMENSIONS,
  )
