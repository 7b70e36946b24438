"""Bounds of the sizes of networks in a config.

Configs come with other people's runs and bundles: a few bytes of one could ask
for terabytes, or for networks that take hours to build. No sensible network
reaches these bounds.
"""

from collections.abc import Iterator

from mtnet_jax.system import errors

# Name -> (type, lowest, highest) of its value, or of each of its values.
_RUN = {
  # Smaller ones leave nothing of the deepest features.
  'image_size': (int, 32, 2048),
  'eval_batch_size': (int, 1, 4096),
}
_WIDTH = (int, 1, 16384)
_NET = {
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
# What networks have where a config says nothing; a test compares the two.
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
# Of the largest single activation of a batch; that of the paper's networks at
# the default batch is 0.2 GB.
_MAX_ACTIVATION = 8 << 30


def check(config, *, where='config'):
  """Raises `errors.InputError` naming the first value out of its bounds.

  Args:
    config: a config as a dict of dicts; any key may be missing.
    where: prefix of the names of values in messages.
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
        f' {_MAX_PARAMETERS:,} can be used.'
      )
  _check_activations(config, where)


def _check_activations(config, where):
  """Raises where image, batch and widths ask for too much together."""
  if not {'image_size', 'eval_batch_size'} <= set(config.keys()):
    return
  if _largest_activation(config) > _MAX_ACTIVATION:
    raise errors.InputError(
      f'{where}: image_size={config["image_size"]} with'
      f' eval_batch_size={config["eval_batch_size"]} and these widths asks for'
      f' more than {_MAX_ACTIVATION >> 30} GiB at once: make one of them'
      ' smaller.'
    )


def _largest_activation(config):
  """Bytes of the largest activation of a batch, in float32."""
  seg_net, class_net, unet = (
    {**_DEFAULTS[name], **config.get(name, {})} for name in _NETS
  )
  found = [(1, 3), *_of_seg_net(seg_net), *_of_xception(class_net)]
  if config.get('strategy') == 'single':
    found += _of_unet(unet)
  if config.get('strategy') == 'feedback':
    # What the classifier reads, on the deepest grid.
    deepest = _values(seg_net['tail_widths'])[-1]
    stride = 2 << len(_values(seg_net['entry_widths']))
    found += [(stride, deepest + seg_net['decoder_features'])]
  # Odd sizes are rounded up.
  return (4 * config['eval_batch_size']) * max(
    channels * (-(-config['image_size'] // stride)) ** 2
    for stride, channels in found
  )


def _of_xception(net) -> Iterator[tuple[int, int]]:
  """Yields (stride, channels) of the activations of either Xception."""
  stride = 2
  for width in _values(net['stem_widths']):
    yield stride, width
  for width in _values(net['entry_widths']):
    # Before the grid is halved, at the end of the block.
    yield stride, width
    stride *= 2
  for width in (net['exit_width'], *_values(net['tail_widths'])):
    yield stride, width


def _of_seg_net(net) -> Iterator[tuple[int, int]]:
  """Yields (stride, channels) of the activations of a `DeepLabV3Plus`."""
  yield from _of_xception(net)
  entry = _values(net['entry_widths'])
  stride = 2 << len(entry)
  aspp, decoder = net['aspp_features'], net['decoder_features']
  # The 1 x 1 convolution, the dilated ones and the pooled image, concatenated.
  yield stride, (2 + len(_values(net['aspp_rates']))) * aspp
  # The fine layer's maps beside the features.
  yield stride, aspp + 2
  # The decoder, on the grid of the second block.
  yield 4, aspp + net['low_level_features']
  yield 4, decoder


def _of_unet(net) -> Iterator[tuple[int, int]]:
  """Yields (stride, channels) of the activations of a `UNet`."""
  *widths, bottom = _values(net['widths'])
  for level, width in enumerate(widths):
    # Two of them where the way up meets the way down.
    yield 1 << level, 2 * width
  yield 1 << len(widths), bottom


def _check_all(value, bounds, name):
  values = _values(value)
  if not 0 < len(values) <= _MAX_LAYERS:
    raise errors.InputError(
      f'{name} has {len(values)} values: 1 to {_MAX_LAYERS} can be used.'
    )
  for one in values:
    _check(one, bounds, name)


def _check(value, bounds, name):
  kind, low, high = bounds
  kinds = (int,) if kind is int else (int, float)
  # Written so that NaN fails.
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
  """An estimate of a network's number of parameters, at least half of it.

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
