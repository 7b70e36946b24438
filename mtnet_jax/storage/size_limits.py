"""Bounds the sizes of networks, images and batches in a config.

Configs come with other people's runs and bundles: a few bytes in one could ask
for terabytes, or for networks that take hours to build. No sensible network
reaches these bounds.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from mtnet_jax.system import errors

# Key -> (type, minimum, maximum) of its value, or of each element of its value.
_RUN: dict[str, tuple[type, float, float]] = {
  # Smaller images leave no pixel in the deepest features.
  'image_size': (int, 32, 2048),
  'eval_batch_size': (int, 1, 4096),
}
_WIDTH: tuple[type, float, float] = (int, 1, 16384)
_NET: dict[str, tuple[type, float, float]] = {
  'stem_widths': _WIDTH,
  'entry_widths': _WIDTH,
  'exit_width': _WIDTH,
  'tail_widths': _WIDTH,
  'aspp_features': _WIDTH,
  'low_level_features': _WIDTH,
  'decoder_features': _WIDTH,
  'widths': _WIDTH,
  'middle_blocks': (int, 0, 256),
  'tail_dilation': (int, 1, 64),
  'aspp_rates': (int, 1, 64),
  'dropout_rates': (float, 0, 0.99),
  'dropout_rate': (float, 0, 0.99),
  'input_mean': (float, -1e6, 1e6),
  'input_std': (float, 1e-6, 1e6),
  'bn_epsilon': (float, 1e-12, 1),
  'bn_momentum': (float, 0, 1),
}
# Defaults of the networks, for keys that a config lacks; a test compares them.
_XCEPTION = {
  'stem_widths': (32, 64),
  'entry_widths': (128, 256, 728),
  'exit_width': 1024,
}
_DEFAULTS = {
  'seg_net': {
    **_XCEPTION,
    'tail_widths': (1536, 1536, 2048),
    'aspp_features': 256,
    'aspp_rates': (6, 12, 18),
    'low_level_features': 48,
    'decoder_features': 256,
  },
  'class_net': {**_XCEPTION, 'tail_widths': (1536, 2048)},
  'unet': {'widths': (64, 128, 256, 512, 1024)},
}
_NETS = ('seg_net', 'class_net', 'unet')
_MAX_LAYERS = 32
_MAX_PARAMETERS = 1 << 31
# Limit for the largest activation of a batch. The paper's networks have 0.2 GB
# at the default batch size.
_MAX_ACTIVATION_BYTES = 8 << 30


def check(config: Mapping[str, Any], *, where: str = 'config') -> None:
  """Raises `errors.InputError` naming the first value out of its bounds.

  Args:
    config: a config as a dict of dicts; any key may be missing.
    where: prefix of keys in messages.
  """
  for key, bounds in _RUN.items():
    if key in config:
      _check(config[key], bounds, f'{where}.{key}')
  for name in _NETS:
    net = config.get(name, {})
    if not hasattr(net, 'items'):
      raise errors.InputError(f'{where}.{name} must be a group of values.')
    for key, bounds in _NET.items():
      if key in net:
        _check_all(net[key], bounds, f'{where}.{name}.{key}')
    if _parameters(net) > _MAX_PARAMETERS:
      raise errors.InputError(
        f'{where}.{name} asks for too many parameters: at most'
        f' {_MAX_PARAMETERS:,} are allowed.'
      )
  _check_activations(config, where)


def _check_activations(config, where):
  """Raises if image size, batch size and widths together need too much."""
  if not {'image_size', 'eval_batch_size'} <= set(config.keys()):
    return
  if _largest_activation(config) > _MAX_ACTIVATION_BYTES:
    raise errors.InputError(
      f'{where}: image_size={config["image_size"]} with'
      f' eval_batch_size={config["eval_batch_size"]} and these widths needs'
      f' over {_MAX_ACTIVATION_BYTES >> 30} GiB for one activation: make one of'
      ' them smaller.'
    )


def _largest_activation(config):
  """Returns the bytes of a batch's largest activation, in float32."""
  seg_net, class_net, unet = (
    {**_DEFAULTS[name], **config.get(name, {})} for name in _NETS
  )
  found = [(1, 3), *_of_seg_net(seg_net), *_of_xception(class_net)]
  if config.get('strategy') == 'single':
    found += _of_unet(unet)
  if config.get('strategy') == 'feedback':
    # The classifier's input, on the deepest grid.
    deepest = _values(seg_net['tail_widths'])[-1]
    stride = 2 << len(_values(seg_net['entry_widths']))
    found += [(stride, deepest + seg_net['decoder_features'])]
  # Odd sizes are rounded up.
  return (4 * config['eval_batch_size']) * max(
    channels * (-(-config['image_size'] // stride)) ** 2
    for stride, channels in found
  )


def _of_xception(net: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
  """Yields (stride, channels) of the activations of either Xception."""
  stride = 2
  for width in _values(net['stem_widths']):
    yield stride, width
  for width in _values(net['entry_widths']):
    # The block halves the grid at its end.
    yield stride, width
    stride *= 2
  for width in (net['exit_width'], *_values(net['tail_widths'])):
    yield stride, width


def _of_seg_net(net: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
  """Yields (stride, channels) of the activations of a `DeepLabV3Plus`."""
  yield from _of_xception(net)
  entry = _values(net['entry_widths'])
  stride = 2 << len(entry)
  aspp, decoder = net['aspp_features'], net['decoder_features']
  # The 1 x 1 convolution, the dilated convolutions and the pooled image,
  # concatenated.
  yield stride, (2 + len(_values(net['aspp_rates']))) * aspp
  # The fine layer's two maps, concatenated with the features.
  yield stride, aspp + 2
  # The decoder, on the grid of the second block.
  yield 4, aspp + net['low_level_features']
  yield 4, decoder


def _of_unet(net: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
  """Yields (stride, channels) of the activations of a `UNet`."""
  *widths, bottom = _values(net['widths'])
  for level, width in enumerate(widths):
    # The decoder concatenates its features with the skip connection's.
    yield 1 << level, 2 * width
  yield 1 << len(widths), bottom


def _check_all(value, bounds, name):
  values = _values(value)
  if not 0 < len(values) <= _MAX_LAYERS:
    raise errors.InputError(
      f'{name} has {len(values)} values: it must have 1 to {_MAX_LAYERS}.'
    )
  for one in values:
    _check(one, bounds, name)


def _check(value, bounds, name):
  kind, low, high = bounds
  kinds = (int,) if kind is int else (int, float)
  # `not low <= value <= high` also refuses NaN.
  if (
    not isinstance(value, kinds)
    or isinstance(value, bool)
    or not low <= value <= high
  ):
    number = 'a whole number' if kind is int else 'a number'
    raise errors.InputError(
      f'{name}={str(value)[:20]} must be {number} from {low} to {high}.'
    )


def _parameters(net):
  """Estimates a network's number of parameters; it is at least half of it.

  It counts 3 x 3 kernels between neighbouring layers, and the middle flow.
  """
  widths = [
    width
    for key, bounds in _NET.items()
    if bounds is _WIDTH and key in net
    for width in _values(net[key])
  ]
  middle = _values(net.get('entry_widths', 0))[-1]
  return (
    9 * sum(width**2 for width in widths)
    + 3 * net.get('middle_blocks', 0) * middle**2
  )


def _values(value):
  return value if isinstance(value, (list, tuple)) else [value]
