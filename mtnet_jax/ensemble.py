"""Several answers about the same patches as one: of models, of symmetries.

What is averaged are probabilities. That they disagree is kept: the malignancy
of every member, and a map of the standard deviation of the fine probability.
Members of one training set share its faults, so neither is an interval of
confidence: it says how much the answer hangs on the seed, the fold or the way
the patch happens to lie, and no more.
"""

import dataclasses
import functools

import numpy as np

from mtnet_jax import errors
from mtnet_jax import model as model_lib

_MAPS = ('mask', 'probability', 'coarse_mask', 'cam')


@dataclasses.dataclass(frozen=True)
class AveragedPrediction(model_lib.Prediction):
  """What several say together; see `model.Prediction`.

  Attributes:
    malignancy_members: (M, N), what each of them says.
    uncertainty: (N, P, P) standard deviation of their `probability`.
  """

  malignancy_members: np.ndarray
  uncertainty: np.ndarray


def average(predictions):
  """One prediction of several.

  Args:
    predictions: of `model.Prediction`, of the same N patches.

  Returns:
    An `AveragedPrediction`: means of probabilities and activation maps, masks
    where the mean probability (of the coarse net: at least half of the
    members) says so.
  """
  stacked = {
    name: np.stack([getattr(one, name) for one in predictions])
    for name in ('probability', 'malignancy', 'coarse_mask', 'cam')
  }
  mean = {name: values.mean(0) for name, values in stacked.items()}
  return AveragedPrediction(
    mask=mean['probability'] >= 0.5,
    probability=mean['probability'],
    malignancy=mean['malignancy'],
    coarse_mask=mean['coarse_mask'] >= 0.5,
    cam=mean['cam'],
    malignancy_members=stacked['malignancy'],
    uncertainty=stacked['probability'].std(0),
  )


def predict_symmetric(predict, hu):
  """Averages over the eight rotations and reflections of the square.

  Args:
    predict: (N, P, P) HU -> `model.Prediction`.
    hu: (N, P, P).

  Returns:
    Of `average`; members are the symmetries, the patch as it is first.
  """
  hu = np.asarray(hu)
  predictions = []
  for reflected in (False, True):
    for quarter_turns in range(4):
      turn = functools.partial(_turn, quarter_turns, reflected)
      turn_back = functools.partial(_turn_back, quarter_turns, reflected)
      seen = predict(turn(hu))
      maps = {name: turn_back(getattr(seen, name)) for name in _MAPS}
      predictions.append(
        model_lib.Prediction(malignancy=seen.malignancy, **maps)
      )
  return average(predictions)


def _turn(quarter_turns, reflected, maps):
  maps = maps[..., ::-1] if reflected else maps
  return np.rot90(maps, quarter_turns, axes=(1, 2))


def _turn_back(quarter_turns, reflected, maps):
  maps = np.rot90(maps, -quarter_turns, axes=(1, 2))
  return maps[..., ::-1] if reflected else maps


class Ensemble:
  """Models that answer together, such as those of the folds.

  Attributes:
    models: of `model.Model`.
    name: theirs.
    simulated: whether any was trained on SIMULATED attenuation.
  """

  def __init__(self, models):
    if not models:
      raise errors.InputError('an ensemble of no model: give at least one.')
    self.models = tuple(models)
    self.name = ' + '.join(model.name for model in self.models)
    self.simulated = any(model.simulated for model in self.models)

  def __repr__(self):
    data = 'SIMULATED CT' if self.simulated else 'CT'
    return f'<mtnet_jax ensemble {self.name!r}, trained on {data}>'

  def predict(self, hu, pixel_spacing_mm):
    """As `model.Model.predict`; see `average`."""
    return average(
      [model.predict(hu, pixel_spacing_mm) for model in self.models]
    )
