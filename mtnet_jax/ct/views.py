"""One patch of a slice, as the networks see it."""

import dataclasses

import numpy as np

# (slice, row, column), indices from 0; slice 0 has the lowest z.
Voxel = tuple[int, int, int]


@dataclasses.dataclass
class View:
  """One patch and the networks' outputs for it.

  Attributes:
    voxel: (slice, row, column) of its centre.
    hu: (64, 64) int16.
    fine: (64, 64) bool, the whole mask of the Fine Seg-net.
    coarse: (64, 64) bool, the whole mask of the Coarse Seg-net.
    cam: (64, 64) float, class activation map; None once the search has ended,
      unless the nodule is judged by this view.
    malignancy: probability.
    malignancy_members: probability of each averaged output; empty if nothing
      was averaged.
    uncertainty: (64, 64) float, standard deviation of the fine probability;
      None if nothing was averaged, and where `cam` is None.
  """

  voxel: Voxel
  hu: np.ndarray
  fine: np.ndarray
  coarse: np.ndarray
  cam: np.ndarray | None
  malignancy: float
  malignancy_members: tuple[float, ...] = ()
  uncertainty: np.ndarray | None = None
