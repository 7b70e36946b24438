"""Times every kind of convolution in the networks, forward and backward.

    python -m benchmarks.convolutions

Our convolutions, XLA's `lax.conv_general_dilated` and PyTorch's (channels last)
take turns at the shapes of the paper's networks: 224 x 224, batch 8. The table
has medians in milliseconds. "Backward" computes both gradients.
"""

import dataclasses

from absl import app
from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import straightforward
from benchmarks import timing
from mtnet_jax.ops import conv as conv_lib
from mtnet_jax.ops import depthwise as depthwise_lib

_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed rounds.')
_BATCH = flags.DEFINE_integer('batch_size', 8, 'Batch size.')
_JSON = flags.DEFINE_string('json', '', 'JSON file for the results.')


@dataclasses.dataclass(frozen=True)
class Shape:
  """A convolution of the networks.

  Attributes:
    kind: name in the table.
    side: height and width of the input.
    channels: input channels.
    features: output channels; 0 for a depthwise convolution.
    size: height and width of the kernel.
    stride: stride in both axes.
    dilation: rate of an atrous convolution.
  """

  kind: str
  side: int
  channels: int
  features: int = 0
  size: int = 3
  stride: int = 1
  dilation: int = 1

  @property
  def depthwise(self):
    """Whether each channel is convolved on its own."""
    return not self.features

  def __str__(self):
    channels = str(self.channels)
    if not self.depthwise:
      channels += f' -> {self.features}'
    return f'{self.kind}, {self.side} x {self.side}, {channels}'


SHAPES = (
  Shape('depthwise', 112, 128),
  Shape('depthwise / 2', 112, 128, stride=2),
  Shape('depthwise', 56, 256),
  Shape('depthwise', 28, 728),
  Shape('depthwise', 14, 728),
  Shape('depthwise rate 2', 14, 1536, dilation=2),
  Shape('pointwise', 112, 64, 128, size=1),
  Shape('pointwise', 14, 728, 728, size=1),
  Shape('3 x 3 / 2', 224, 3, 32, stride=2),
  Shape('3 x 3', 112, 32, 64),
  Shape('3 x 3', 56, 304, 256),
  Shape('3 x 3 rate 6', 14, 2048, 256, dilation=6),
  Shape('3 x 3 rate 18', 14, 2048, 256, dilation=18),
)


def _jax_function(shape, x, kernel, grad, *, backward):
  conv = depthwise_lib.conv if shape.depthwise else conv_lib.conv

  def forward(x, kernel):
    return conv(x, kernel, stride=shape.stride, dilation=shape.dilation)

  def gradients(x, kernel, grad):
    return jax.vjp(forward, x, kernel)[1](grad)

  arguments = (x, kernel, grad) if backward else (x, kernel)
  function = gradients if backward else forward
  compiled = jax.jit(function).lower(*arguments).compile()
  return lambda: compiled(*arguments)


def _torch_function(shape, x, kernel, grad, *, backward):
  import torch

  def tensor(values, *order):
    values = torch.from_numpy(np.asarray(values)).permute(*order)
    return values.contiguous(memory_format=torch.channels_last)

  x, grad = tensor(x, 0, 3, 1, 2), tensor(grad, 0, 3, 1, 2)
  kernel = tensor(kernel, 3, 2, 0, 1)
  settings = {
    'stride': shape.stride,
    'padding': shape.dilation * (shape.size // 2),
    'dilation': shape.dilation,
    'groups': shape.channels if shape.depthwise else 1,
  }
  if not backward:
    forward = torch.nn.functional.conv2d

    def run():
      with torch.inference_mode():
        forward(x, kernel, **settings)

    return run
  both = [settings['stride']] * 2, [settings['padding']] * 2
  return lambda: torch.ops.aten.convolution_backward(
    grad,
    x,
    kernel,
    None,
    *both,
    [shape.dilation] * 2,
    False,
    [0, 0],
    settings['groups'],
    [True, True, False],
  )


def compare(shape):
  """Returns the row of the table for a `Shape`."""
  rng = np.random.default_rng(0)

  def draw(*dimensions):
    return jnp.asarray(rng.normal(size=dimensions), jnp.float32)

  out = -(-shape.side // shape.stride)
  batch = _BATCH.value
  x = draw(batch, shape.side, shape.side, shape.channels)
  if shape.depthwise:
    kernel = draw(shape.size, shape.size, 1, shape.channels)
  else:
    kernel = draw(shape.size, shape.size, shape.channels, shape.features)
  grad = draw(batch, out, out, kernel.shape[-1])
  row = {'conv': str(shape)}
  for direction, backward in (('forward', False), ('backward', True)):
    arguments = shape, x, kernel, grad
    functions = {'ours': _jax_function(*arguments, backward=backward)}
    with straightforward.port():
      functions['XLA'] = _jax_function(*arguments, backward=backward)
    functions['PyTorch'] = _torch_function(*arguments, backward=backward)
    medians = timing.medians(
      functions, repeats=_REPEATS.value, label=f'{shape} {direction}'
    )
    for name, seconds in medians.items():
      row[f'{direction} {name}'] = 1e3 * seconds
  return row


def main(_):
  """Runs the command."""
  columns = {'conv': ('convolution', '')} | {
    f'{direction} {name}': (f'{direction}, {name}', '.1f')
    for direction in ('forward', 'backward')
    for name in ('ours', 'XLA', 'PyTorch')
  }
  rows = []
  with jax.default_matmul_precision('highest'):
    for shape in SHAPES:
      rows.append(compare(shape))
      print(timing.table(rows[-1:], columns).splitlines()[-1], flush=True)
  print(timing.describe(timing.environment()))
  print(timing.table(rows, columns))
  if _JSON.value:
    timing.write_json(_JSON.value, rows=rows)


if __name__ == '__main__':
  app.run(main)
