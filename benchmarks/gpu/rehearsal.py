"""The networks of a rehearsal: what compiles in seconds on a CPU."""

from configs import mtnet as configs


def get_config():
  """`configs/mtnet.py:test` with networks that are smaller still, unlocked."""
  config = configs.get_config('test').unlock()
  config.image_size = 32
  small = {'stem_widths': (8,), 'middle_blocks': 0, 'tail_widths': (8,)}
  config.seg_net.update(small, entry_widths=(8, 8))
  config.class_net.update(small, entry_widths=(8, 8))
  return config
