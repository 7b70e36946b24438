"""What a user gets for patches: `Prediction`, and that of several models."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What the networks say about N patches, on the patches' own pixels.

  Attributes:
    mask: (N, P, P) bool, the nodule: `probability` >= 0.5.
    probability: (N, P, P) float32 of the Fine Seg-net.
    malignancy: (N,) float32 probability of the Class-net: of the readers'
      suspicion, not of a pathologist's finding.
    coarse_mask: (N, P, P) bool of the Coarse Seg-net.
    cam: (N, P, P) float32 class activation map; what is above 0 speaks for
      malignant.
  """

  mask: np.ndarray
  probability: np.ndarray
  malignancy: np.ndarray
  coarse_mask: np.ndarray
  cam: np.ndarray


@dataclasses.dataclass(frozen=True)
class AveragedPrediction(Prediction):
  """What several answers say together; see `model.Prediction`.

  Attributes:
    malignancy_members: (M, N), what each of them says.
    uncertainty: (N, P, P) standard deviation of their `probability`.
  """

  malignancy_members: np.ndarray
  uncertainty: np.ndarray
