"""The straightforward port: our networks with the operations of plain Flax.

A convolution is one `lax.conv_general_dilated`, with a group per channel if it
is depthwise, as in `nn.Conv`. Max-pooling is one `lax.reduce_window`, as in
`nn.max_pool`, and batch norm is Flax's. Networks that are traced within
`port()` use these operations. Their layers, parameters and results do not
change.
"""

import contextlib
from unittest import mock

from flax import linen as nn
from jax import lax
import jax.numpy as jnp

from mtnet_jax.models import batch_norm
from mtnet_jax.models import layers
from mtnet_jax.ops import conv
from mtnet_jax.ops import depthwise
from mtnet_jax.ops import pointwise
from mtnet_jax.ops import pooling


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


def _depthwise(x, kernel, *, stride=1, dilation=1, relu=False):
  x = nn.relu(x) if relu else x
  return _conv(x, kernel, stride=stride, dilation=dilation)


def _pool(x, size, stride, pads):
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    (1, size, size, 1),
    (1, stride, stride, 1),
    ((0, 0), *pads, (0, 0)),
  )


@contextlib.contextmanager
def port():
  """Makes networks traced within this context the straightforward port."""
  with (
    mock.patch.object(conv, 'conv', _conv),
    mock.patch.object(pointwise, 'conv', _conv),
    mock.patch.object(depthwise, 'conv', _depthwise),
    mock.patch.object(pooling, '_pool', _pool),
    mock.patch.object(batch_norm, 'BatchNorm', nn.BatchNorm),
    mock.patch.object(layers, '_can_fold', lambda loop, norm, x: False),
  ):
    yield
