"""The sweeps and peers on the page, and where their runs are.

RUNS/tables-small/POINT/foldK/    Tables 1, 4 and 5
RUNS/rank_loss-small/POINT/foldK/ the question of Figure 8, on all nodules
RUNS/figure7-small/POINT/         this and the other sweeps on one split
RUNS/monai/foldK/                 the peers, from `benchmarks.peers_real`
"""

import pathlib
import runpy
from typing import NamedTuple

from mtnet_jax.experiments import sweep_plan

ROOT = pathlib.Path(__file__).parents[2]
FOLDS = (0, 1, 2, 3, 4)
# Nodules of the dataset whose CT crops are missing: their records mostly
# contain mirrored pixels or air.
WITHOUT_CT = (
  'LIDC-IDRI-0012_23_11',
  'LIDC-IDRI-0800_855_3',
  'LIDC-IDRI-0851_804_2',
)


class Sweep(NamedTuple):
  """A sweep that the page shows.

  Attributes:
    name: its name in the config file.
    file: the config file in configs/.
    folds: the folds on which its points are tested; empty for the usual split.
  """

  name: str
  file: str
  folds: tuple[int, ...] = ()

  @property
  def command(self):
    """The command that trains it."""
    folds = f' --config.test_folds={",".join(map(str, self.folds))}'
    return (
      f'python -m mtnet_jax.sweep --config=configs/{self.file}:'
      f'{self.name},small{folds if self.folds else ""}'
    )

  def config(self):
    """Returns its config, as the command loads it."""
    path = ROOT / 'configs' / self.file
    config = runpy.run_path(str(path))['get_config'](f'{self.name},small')
    with config.unlocked():
      config.test_folds = self.folds
    return config

  def plan(self):
    """Returns its runs, from `sweep_plan.points`."""
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
