"""Compares the bound on activations with the arrays of traced networks."""

import dataclasses
import math

import jax
import project_configs
import pytest

from mtnet_jax.models import baselines
from mtnet_jax.models import mtnet
from mtnet_jax.models import nets
from mtnet_jax.models import predictor
from mtnet_jax.storage import size_limits
from mtnet_jax.system import errors

_BATCH, _SIZE = 2, 96


def _largest_array(jaxpr):
  """Returns the bytes of the largest activation in a program."""
  found = 0
  for equation in jaxpr.eqns:
    for out in equation.outvars:
      shape = out.aval.shape
      # Other arrays are kernels, which have a bound of their own.
      if len(shape) == 4 and shape[0] == _BATCH:
        found = max(found, math.prod(shape) * out.aval.dtype.itemsize)
    for value in equation.params.values():
      for part in value if isinstance(value, (list, tuple)) else [value]:
        inner = getattr(part, 'jaxpr', part)
        if hasattr(inner, 'eqns'):
          found = max(found, _largest_array(inner))
  return found


@pytest.mark.parametrize(
  ('group', 'key', 'value', 'strategy', 'megabytes'),
  [
    # A quarter of 96 is 24: 4 bytes * 2 * 24**2 * (8 + 3000) channels.
    ('seg_net', 'low_level_features', 3000, 'mtnet', 13.9),
    # 4 * 2 * 24**2 * 3000.
    ('seg_net', 'decoder_features', 3000, 'mtnet', 13.8),
    # Concatenated with 8 low-level features: 4 * 2 * 24**2 * (9000 + 8).
    ('seg_net', 'aspp_features', 9000, 'mtnet', 41.5),
    ('seg_net', 'aspp_features', 9000, 'shared', 41.5),
    # A sixteenth is 6: 4 * 2 * 6**2 * 16000.
    ('seg_net', 'tail_widths', (16, 16, 16000), 'mtnet', 4.6),
    # Concatenated with the decoder's 8: 4 * 2 * 6**2 * (16000 + 8).
    ('seg_net', 'tail_widths', (16, 16, 16000), 'feedback', 4.6),
    # An eighth, before the third block halves it: 4 * 2 * 12**2 * 9000.
    ('seg_net', 'entry_widths', (8, 8, 9000), 'mtnet', 10.4),
    ('class_net', 'entry_widths', (8, 8, 9000), 'mtnet', 10.4),
    # 4 * 2 * 6**2 * 16000.
    ('class_net', 'exit_width', 16000, 'mtnet', 4.6),
    # Concatenated with the skip connection, at half the side:
    # 4 * 2 * 48**2 * 2 * 500.
    ('unet', 'widths', (4, 500, 4), 'single', 18.4),
  ],
)
def test_the_largest_activation_is_counted(
  group, key, value, strategy, megabytes
):
  """The padding of convolutions is not counted."""
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.strategy, config.image_size = strategy, _SIZE
    config.eval_batch_size = _BATCH
    config[group][key] = value
  counted = size_limits._largest_activation(config)
  assert counted / 1e6 == pytest.approx(megabytes, abs=0.05)
  traced = jax.make_jaxpr(
    lambda variables, hu: predictor.predict_step(
      variables, hu, nets=nets.make_nets(config), **predictor.options(config)
    )
  )(
    nets.variable_shapes(config),
    jax.ShapeDtypeStruct((_BATCH, 64, 64), 'float32'),
  )
  assert counted <= _largest_array(traced.jaxpr) <= 2 * counted


@pytest.mark.parametrize(
  'config',
  [
    # 4 * 64 * 512**2 * (48 + 15000) = 1 TB.
    {
      'seg_net': {'low_level_features': 15000, 'aspp_features': 48},
      'image_size': 2048,
      'eval_batch_size': 64,
    },
    # 4 * 64 * 256**2 * 8192 = 137 GB, at a quarter of the side.
    {
      'seg_net': {'decoder_features': 8192},
      'image_size': 1024,
      'eval_batch_size': 64,
    },
    # 4 * 64 * 256**2 * (9000 + 48) = 152 GB, in the decoder.
    {
      'seg_net': {'aspp_features': 9000},
      'image_size': 1024,
      'eval_batch_size': 64,
    },
    # 4 * 4096 * 512**2 * 128 = 550 GB, with the default widths.
    {'image_size': 1024, 'eval_batch_size': 4096},
  ],
)
def test_every_layer_is_bounded(config):
  with pytest.raises(errors.InputError, match='image_size=.*8 GiB'):
    size_limits.check(config)
  size_limits.check({**config, 'image_size': 64, 'eval_batch_size': 4})


def test_concatenated_branches_are_counted_together():
  """Five branches, at an eighth of the side: 4 * 2 * 12**2 * 5 * 9000."""
  config = project_configs.CONFIGS.get_config('test')
  with config.unlocked():
    config.image_size, config.eval_batch_size = _SIZE, _BATCH
    config.seg_net.update(aspp_features=9000, entry_widths=(8, 8))
  counted = size_limits._largest_activation(config)
  assert counted == 4 * 2 * 12**2 * 5 * 9000


@pytest.mark.parametrize('name', project_configs.CONFIGS.VARIANTS)
def test_the_projects_configs_are_far_below_the_bound(name):
  """The paper's network: 4 * 32 * 112**2 * 128 channels = 0.2 GB."""
  config = project_configs.CONFIGS.get_config(name)
  assert size_limits._largest_activation(config) <= 4 * 32 * 112**2 * 128


@pytest.mark.parametrize(
  ('group', 'net'),
  [
    ('seg_net', mtnet.CoarseSegNet),
    ('class_net', mtnet.ClassNet),
    ('unet', baselines.UNet),
  ],
)
def test_defaults_are_those_of_the_networks(group, net):
  fields = {field.name: field.default for field in dataclasses.fields(net)}
  expected = size_limits._DEFAULTS[group]
  assert {key: fields[key] for key in expected} == expected
  widths = {
    key
    for key, bounds in size_limits._NET.items()
    if bounds is size_limits._WIDTH and key in fields
  }
  assert widths <= expected.keys()
