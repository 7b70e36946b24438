"""Several answers about the same patches as one: of models, of symmetries.

What is averaged are probabilities. That they disagree is kept: the malignancy
of every answer, and a map of the standard deviation of the fine probability.
Members of one training set share its faults, so neither is an interval of
confidence: it says how much the answer hangs on the seed, the fold or the way
the patch happens to lie, and no more.

An answer is what `predictor.predict_step` returns: a dict of arrays.
"""

import functools
from typing import NamedTuple

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.inference import prediction
from mtnet_jax.models import predictor
from mtnet_jax.system import errors

# Rotations and reflections of the square.
NUM_SYMMETRIES = 8
# Outputs of which the disagreement is kept.
_SPREAD = ('class', 'fine')


class Averaged(NamedTuple):
  """What M answers about the same N patches say together.

  Attributes:
    outputs: means, by the names of the answers.
    sd: standard deviations (over M, not M - 1) of 'class' (N,) and 'fine'
      (N, P, P), as far as there are such outputs.
    malignancy_members: (M, N), 'class' of each; None where there is none.
    marked: (N, P, P) bool, pixels that the fine mask of at least one answer
      holds; None where there is none.
  """

  outputs: dict
  sd: dict
  malignancy_members: np.ndarray | None
  marked: np.ndarray | None


def average(answers):
  """Averages answers one by one, so that they need not be in memory together.

  Args:
    answers: dicts of float arrays, about the same patches; at least one.

  Returns:
    An `Averaged`. Where all answers are equal, the means are exactly these and
    the standard deviations exactly 0.
  """
  mean, squares, members, marked, count = {}, {}, [], None, 0
  for count, answer in enumerate(answers, 1):
    if count == 1:
      mean = {key: np.zeros_like(x) for key, x in answer.items()}
      squares = {key: mean[key] for key in _SPREAD if key in mean}
    # Welford's method.
    change = {key: x - mean[key] for key, x in answer.items()}
    mean = {key: mean[key] + x / count for key, x in change.items()}
    squares = {
      key: x + change[key] * (answer[key] - mean[key])
      for key, x in squares.items()
    }
    if 'class' in answer:
      members.append(answer['class'])
    if 'fine' in answer:
      drawn = answer['fine'] >= metrics.THRESHOLD
      marked = drawn if marked is None else marked | drawn
  return Averaged(
    outputs=mean,
    sd={key: np.sqrt(x / count) for key, x in squares.items()},
    malignancy_members=np.stack(members) if members else None,
    marked=marked,
  )


def symmetric(predict, hu):
  """Answers about a patch in all ways in which it can lie on the grid.

  Args:
    predict: (N, P, P) HU -> an answer.
    hu: (N, P, P).

  Yields:
    `NUM_SYMMETRIES` answers, maps turned back; of the patch as it is first.
  """
  hu = np.asarray(hu)
  for reflected in (False, True):
    for quarter_turns in range(4):
      answer = predict(_turn(quarter_turns, reflected, hu))
      yield {
        key: _turn_back(quarter_turns, reflected, x) if x.ndim == 3 else x
        for key, x in answer.items()
      }


def _turn(quarter_turns, reflected, maps):
  maps = maps[..., ::-1] if reflected else maps
  return np.rot90(maps, quarter_turns, axes=(1, 2))


def _turn_back(quarter_turns, reflected, maps):
  maps = np.rot90(maps, -quarter_turns, axes=(1, 2))
  return maps[..., ::-1] if reflected else maps


def disagreement(averaged):
  """How far answers differ about each patch, as columns of records.

  Args:
    averaged: an `Averaged`.

  Returns:
    As far as there are such outputs, 'malignancy_sd': (N,) standard deviation
    of the probability of malignancy, and 'fine_uncertainty': (N,) mean of the
    standard deviation of the fine probability over the pixels that at least one
    answer marks: the mask, and what is in doubt around it. 0 where none marks
    anything, for so they agree.
  """
  found = {}
  if 'class' in averaged.sd:
    found['malignancy_sd'] = averaged.sd['class']
  if 'fine' in averaged.sd:
    sums = np.sum(averaged.sd['fine'], axis=(1, 2), where=averaged.marked)
    pixels = np.sum(averaged.marked, axis=(1, 2))
    found['fine_uncertainty'] = sums / np.maximum(pixels, 1)
  return found


class Ensemble:
  """Models that answer together, such as those of the folds.

  Attributes:
    models: of `model.Model`.
    symmetries: whether each of them looks at a patch in all eight ways in which
      it can lie.
    name: theirs.
    simulated: whether any was trained on SIMULATED attenuation.
  """

  def __init__(self, models, *, symmetries=False):
    if not models:
      raise errors.InputError('an ensemble of no model: give at least one.')
    self.models = tuple(models)
    self.symmetries = symmetries
    self.name = ' + '.join(model.name for model in self.models)
    self.simulated = any(model.simulated for model in self.models)

  def __repr__(self):
    data = 'SIMULATED CT' if self.simulated else 'CT'
    return f'<mtnet_jax ensemble {self.name!r}, trained on {data}>'

  def predict(self, hu, pixel_spacing_mm):
    """As `model.Model.predict`, of the mean probabilities of all answers.

    Returns:
      An `AveragedPrediction`; its members are the models, with `symmetries`
      the eight answers of each.
    """
    averaged = average(self._answers(hu, pixel_spacing_mm))
    return prediction.AveragedPrediction(
      **predictor.as_answer(averaged.outputs),
      malignancy_members=averaged.malignancy_members,
      uncertainty=averaged.sd['fine'],
    )

  def _answers(self, hu, pixel_spacing_mm):
    for model in self.models:
      look = functools.partial(model.outputs, pixel_spacing_mm=pixel_spacing_mm)
      if self.symmetries:
        yield from symmetric(look, hu)
      else:
        yield look(hu)
