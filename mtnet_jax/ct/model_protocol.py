"""What this package needs of a model, so that it imports no network.

`inference.model.Model` and `inference.ensemble.Ensemble` satisfy it.
"""

from typing import Protocol

import numpy as np


class Prediction(Protocol):
  """The networks' outputs for N patches of P x P pixels.

  An ensemble's also has `malignancy_members` and `uncertainty`, see
  `inference.prediction.AveragedPrediction`.
  """

  @property
  def mask(self) -> np.ndarray:
    """(N, P, P) bool mask of the Fine Seg-net."""

  @property
  def coarse_mask(self) -> np.ndarray:
    """(N, P, P) bool mask of the Coarse Seg-net."""

  @property
  def cam(self) -> np.ndarray:
    """(N, P, P) class activation map."""

  @property
  def malignancy(self) -> np.ndarray:
    """(N,) probability of malignancy."""


class Model(Protocol):
  """A trained model, or several as one."""

  @property
  def name(self) -> str:
    """Name of the model."""

  @property
  def simulated(self) -> bool:
    """Whether it was trained on SIMULATED attenuation."""

  @property
  def fingerprint(self) -> str:
    """A hash of its config and weights."""

  def predict(self, hu: np.ndarray, pixel_spacing_mm: float) -> Prediction:
    """Segments and classifies the nodules at the centres of patches.

    Args:
      hu: (N, P, P) attenuation in HU.
      pixel_spacing_mm: in-plane spacing of the CT.
    """
