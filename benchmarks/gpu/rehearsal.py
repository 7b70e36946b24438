"""The config of a rehearsal, whose networks compile in seconds on a CPU."""

from configs import mtnet as configs


def get_config():
  """Returns `configs/mtnet.py:test` with even smaller networks, unlocked."""
  config = configs.get_config('test').unlock()
  config.image_size = 32
  small = {'stem_widths': (8,), 'middle_blocks': 0, 'tail_widths': (8,)}
  config.seg_net.update(small, entry_widths=(8, 8))
  config.class_net.update(small, entry_widths=(8, 8))
  return config
