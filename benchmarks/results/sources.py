"""What the page is made of: sweeps, peers, and where they lie.

RUNS/tables-small/POINT/foldK/    Tables 1, 4 and 5
RUNS/rank_loss-small/POINT/foldK/ Figure 8's question, of all nodules
RUNS/figure7-small/POINT/         and the other sweeps of one split
RUNS/monai/foldK/                 the peers, of `benchmarks.peers_real`
"""

import pathlib
import runpy
from typing import NamedTuple

from mtnet_jax.experiments import sweep_plan

ROOT = pathlib.Path(__file__).parents[2]
FOLDS = (0, 1, 2, 3, 4)
# Of the dataset but not of the CT at hand: their crops are missing, and the
# records hold mostly mirror or air.
WITHOUT_CT = (
  'LIDC-IDRI-0012_23_11',
  'LIDC-IDRI-0800_855_3',
  'LIDC-IDRI-0851_804_2',
)


class Sweep(NamedTuple):
  """A sweep that the page shows.

  Attributes:
    name: of it, in its file of configs.
    file: in configs/.
    folds: that its points are tested on; empty for the usual split.
  """

  name: str
  file: str
  folds: tuple[int, ...] = ()

  @property
  def command(self):
    """That trains it."""
    folds = f' --config.test_folds={",".join(map(str, self.folds))}'
    return (
      f'python -m mtnet_jax.sweep --config=configs/{self.file}:'
      f'{self.name},small{folds if self.folds else ""}'
    )

  def config(self):
    """Its config, as the command has it."""
    path = ROOT / 'configs' / self.file
    config = runpy.run_path(str(path))['get_config'](f'{self.name},small')
    with config.unlocked():
      config.test_folds = self.folds
    return config

  def plan(self):
    """Its runs, of `sweep_plan.points`."""
    return sweep_plan.points(self.config())


TABLES = Sweep('tables', 'baselines.py', FOLDS)
RANK_LOSS = Sweep('rank_loss', 'ablations.py', FOLDS)
FIGURE7 = Sweep('figure7', 'ablations.py')
FIGURE8 = Sweep('figure8', 'ablations.py')
IMAGE_SIZE = Sweep('image_size', 'ablations.py')
SWEEPS = {
  sweep.name: sweep
  for sweep in (TABLES, RANK_LOSS, FIGURE7, FIGURE8, IMAGE_SIZE)
}
PEERS = 'monai'
PEERS_COMMAND = (
  'python -m benchmarks.peers_real --run=runs/tables-small/mtnet/foldK'
  ' --out=runs/monai/foldK'
)
