"""What a user gets for patches, from one model or from several."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The networks' results for N patches, on the patches' own pixels.

  Attributes:
    mask: (N, P, P) bool, the nodule: `probability` >= 0.5.
    probability: (N, P, P) float32 of the Fine Seg-net.
    malignancy: (N,) float32 probability of the Class-net: of the readers'
      suspicion, not of a pathologist's finding.
    coarse_mask: (N, P, P) bool of the Coarse Seg-net.
    cam: (N, P, P) float32 class activation map; values above 0 are evidence for
      malignancy.
  """

  mask: np.ndarray
  probability: np.ndarray
  malignancy: np.ndarray
  coarse_mask: np.ndarray
  cam: np.ndarray


@dataclasses.dataclass(frozen=True)
class AveragedPrediction(Prediction):
  """The mean of several outputs.

  Attributes:
    malignancy_members: (M, N), the `malignancy` of each.
    uncertainty: (N, P, P) standard deviation of their `probability`.
  """

  malignancy_members: np.ndarray
  uncertainty: np.ndarray
