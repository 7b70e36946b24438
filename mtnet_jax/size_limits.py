"""Upper bounds of what a config may ask for.

Configs come with other people's runs and bundles: a few bytes of one could ask
for terabytes, or for networks that take hours to build. No network that is
meant reaches these bounds.
"""

from mtnet_jax import errors

_MOST = {'image_size': 2048, 'eval_batch_size': 4096}
_NETS = ('seg_net', 'class_net', 'unet')
_MOST_OF_NETS = {'middle_blocks': 256}
_MOST_FEATURES = 16384
_MOST_LAYERS = 32


def check(config, *, where='config'):
  """Raises `errors.InputError` naming the first value beyond its bound.

  Args:
    config: a config as a dict of dicts, of which any key may be missing.
    where: begins the name of the value.
  """
  for key, most in _MOST.items():
    _check(config.get(key), most, f'{where}.{key}')
  for net in _NETS:
    for key, value in config.get(net, {}).items():
      name = f'{where}.{net}.{key}'
      values = value if isinstance(value, (list, tuple)) else [value]
      if len(values) > _MOST_LAYERS:
        raise errors.InputError(
          f'{name} has {len(values)} values: at most {_MOST_LAYERS} can be'
          ' used.'
        )
      for one in values:
        _check(one, _MOST_OF_NETS.get(key, _MOST_FEATURES), name)


def _check(value, most, name):
  # Written so that NaN fails. What is no number fails where it is used.
  if isinstance(value, (int, float)) and not value <= most:
    raise errors.InputError(
      f'{name}={str(value)[:20]} is too large: at most {most} can be used.'
    )
