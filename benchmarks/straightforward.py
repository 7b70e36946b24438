"""The straightforward port: every convolution as `nn.Conv` lowers it.

Flax's `nn.Conv` is one `lax.conv_general_dilated`, with a group per channel
where it is depthwise. Networks built below `port()` compute with that; their
parameters, layers and results are the same.
"""

import contextlib
from unittest import mock

from jax import lax

from mtnet_jax import ops


def _conv(x, kernel, *, stride=1, dilation=1, padding=None):
  pad = dilation * (kernel.shape[0] // 2) if padding is None else padding
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((pad, pad), (pad, pad)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1] // kernel.shape[2],
  )


@contextlib.contextmanager
def port():
  """Whatever is traced inside uses XLA's own convolutions and Flax's norm."""
  with (
    mock.patch.object(ops, 'conv', _conv),
    mock.patch.object(ops, 'pointwise_conv', _conv),
    mock.patch.object(ops, 'depthwise_conv', _conv),
  ):
    yield
