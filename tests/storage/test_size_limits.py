"""A stranger's config cannot ask for terabytes of memory or days of work."""

import json
import shutil

import jax
import project_configs
import pytest

import mtnet_jax
from mtnet_jax.inference import packing
from mtnet_jax.models import nets
from mtnet_jax.storage import size_limits
from mtnet_jax.storage import workdir
from mtnet_jax.system import errors


@pytest.mark.parametrize(
  ('group', 'key', 'value'),
  [
    (None, 'image_size', 10**6),
    (None, 'image_size', float('nan')),
    (None, 'eval_batch_size', 10**9),
    ('seg_net', 'middle_blocks', 10**9),
    ('class_net', 'exit_width', 10**9),
    ('class_net', 'tail_widths', [8, 1e300]),
    ('unet', 'widths', [8] * 1000),
    ('unet', 'widths', []),
    ('seg_net', 'tail_dilation', 10**6),
    ('seg_net', 'aspp_rates', [1, 10**6]),
    ('seg_net', 'dropout_rates', [0.1, 0.1, 1.0]),
    ('class_net', 'exit_width', -5),
    ('class_net', 'tail_widths', [8, None]),
    ('class_net', 'tail_widths', [8, True]),
    ('class_net', 'exit_width', 8.5),
    ('class_net', 'bn_epsilon', float('nan')),
    ('seg_net', 'input_std', [0]),
  ],
)
def test_absurd_sizes_are_refused(tmp_path, made_run_dir, group, key, value):
  shutil.copytree(made_run_dir, tmp_path / 'run')
  path = tmp_path / 'run' / 'config.json'
  config = json.loads(path.read_text())
  (config.setdefault(group, {}) if group else config)[key] = value
  path.write_text(json.dumps(config))
  name = f'config.json.{group}.{key}' if group else f'config.json.{key}'
  with pytest.raises(errors.InputError, match=name) as e:
    mtnet_jax.load(tmp_path / 'run')
  assert len(str(e.value)) < 300
  with pytest.raises(errors.InputError, match=name):
    packing.write(tmp_path / 'run', tmp_path / 'bundle')


def test_the_largest_sizes_are_accepted():
  size_limits.check(
    {
      'image_size': 2048,
      'eval_batch_size': 2,
      'seg_net': {'middle_blocks': 256, 'entry_widths': (728,)},
      'class_net': {'tail_widths': (8192, 8192), 'tail_dilation': 64},
      'unet': {'widths': (64,) * 32},
    }
  )


@pytest.mark.parametrize(
  'config',
  [
    # 4 * 2048**2 * 3 channels * 256 = 12.9 GB.
    {'image_size': 2048, 'eval_batch_size': 256},
    # 4 * 512**2 / 4 * 8192 * 8 = 17.2 GB.
    {
      'image_size': 512,
      'eval_batch_size': 8,
      'seg_net': {'stem_widths': (32, 8192)},
    },
    # 4 * 1024**2 * 64 * 64 = 17.2 GB, at the full size of the image.
    {
      'image_size': 1024,
      'eval_batch_size': 64,
      'strategy': 'single',
      'unet': {'widths': (64,)},
    },
  ],
)
def test_products_of_sizes_are_bounded(config):
  with pytest.raises(errors.InputError, match='image_size=.*8 GiB'):
    size_limits.check(config)
  # A smaller batch brings each below the bound.
  size_limits.check({**config, 'eval_batch_size': 2})


@pytest.mark.parametrize('group', ['unet', 'seg_net', 'class_net'])
def test_a_network_that_is_not_a_group_is_refused(
  tmp_path, made_run_dir, group
):
  shutil.copytree(made_run_dir, tmp_path / 'run')
  path = tmp_path / 'run' / 'config.json'
  config = json.loads(path.read_text())
  config[group] = 5
  path.write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match=group):
    workdir.read_config(tmp_path / 'run')


def test_all_sizes_together_are_bounded():
  """Each size alone is below its bound."""
  many = {'middle_blocks': 256, 'entry_widths': (8, 16384)}
  with pytest.raises(errors.InputError, match='config.seg_net .*parameters'):
    size_limits.check({'seg_net': many})
  with pytest.raises(errors.InputError, match='config.unet .*parameters'):
    size_limits.check({'unet': {'widths': (16384,) * 3}})


@pytest.mark.parametrize('net', ['coarse', 'class', 'fine'])
@pytest.mark.parametrize('variant', ['mtnet', 'test'])
def test_parameters_are_at_most_twice_their_estimate(net, variant):
  """Flax counts the parameters; the estimate decides what is refused."""
  config = project_configs.CONFIGS.get_config(variant)
  shapes = nets.variable_shapes(config)[net]['params']
  num_parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  group = config.class_net if net == 'class' else config.seg_net
  assert num_parameters <= 2 * size_limits._parameters(group)
  assert size_limits._parameters(group) <= 8 * num_parameters
