"""Defines what models and ensembles predict for patches."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The predictions for N patches, on the patches' own pixels.

  Attributes:
    mask: (N, P, P) bool, the nodule: `probability` >= 0.5.
    probability: (N, P, P) float32, that a pixel belongs to the nodule; from
      Fine Seg-net.
    malignancy: (N,) float32, from Class-net: the probability that radiologists
      suspect malignancy, which is not a pathologist's finding.
    coarse_mask: (N, P, P) bool, from Coarse Seg-net.
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
  """The mean of M outputs.

  Attributes:
    malignancy_members: (M, N), the `malignancy` of each output.
    uncertainty: (N, P, P), the standard deviation of their `probability`.
  """

  malignancy_members: np.ndarray
  uncertainty: np.ndarray
