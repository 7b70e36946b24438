"""Config of a sweep of three points, whose networks compile quickly."""

import pathlib
import runpy

import ml_collections

_CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'


def get_config(data_dir):
  """Returns the config; `data_dir` is where TFDS keeps datasets."""
  config = ml_collections.ConfigDict()
  config.name = 'tiny'
  config.title = 'Three margins'
  config.kind = 'curve'
  config.reference = 'margin30'
  config.base = runpy.run_path(str(_CONFIGS / 'mtnet.py'))['get_config']('test')
  config.points = ml_collections.ConfigDict(
    {
      f'margin{per_cent}': {'rank_loss': {'margin': per_cent / 100}}
      for per_cent in (10, 30, 90)
    }
  )
  base = config.base
  base.stages = ('coarse',)
  base.dataset.data_dir = data_dir
  base.dataset.limit = 16
  base.image_size = 32
  base.rank_loss.weight = 1.0
  base.seg_net.update(
    stem_widths=(4,), entry_widths=(4, 4), middle_blocks=0, tail_widths=(4,)
  )
  base.checkpoint_minutes = 0.0
  return config.lock()
