"""No config of a stranger asks for terabytes, or for days."""

import json
import shutil

import pytest

import mtnet_jax
from mtnet_jax import bundle
from mtnet_jax import errors
from mtnet_jax import size_limits


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
    bundle.write(tmp_path / 'run', tmp_path / 'bundle')


def test_the_largest_sizes_are_not():
  size_limits.check(
    {
      'image_size': 2048,
      'eval_batch_size': 4096,
      'seg_net': {'middle_blocks': 256, 'tail_widths': (16384,) * 32},
    }
  )
