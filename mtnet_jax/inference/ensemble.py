"""Averages of several outputs for the same patches: of models, of symmetries.

Probabilities are averaged. Their disagreement is kept: the malignancy of every
output, and a map of the standard deviation of the fine probability. Members of
one training set share its faults, so neither is an interval of confidence: it
only shows how much the result depends on the seed, the fold or the orientation
of the patch.

An output is what `predictor.predict_step` returns: a dict of arrays.
"""

import functools
import hashlib
from typing import NamedTuple

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.evaluation import calibration
from mtnet_jax.inference import prediction
from mtnet_jax.models import predictor
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors

# Rotations and reflections of the square.
NUM_SYMMETRIES = 8
# Arrays whose disagreement is kept.
_SPREAD = ('class', 'fine')


class Averaged(NamedTuple):
  """Means of M outputs for the same N patches, and their disagreement.

  Attributes:
    outputs: means, by the names of the arrays.
    sd: standard deviations (over M, not M - 1) of 'class' (N,) and 'fine'
      (N, P, P), of those that there are.
    malignancy_members: (M, N), 'class' of each; None where there is none.
    marked: (N, P, P) bool, pixels in at least one of the fine masks; None where
      there is none.
  """

  outputs: dict
  sd: dict
  malignancy_members: np.ndarray | None
  marked: np.ndarray | None


def average(all_outputs):
  """Averages outputs one by one, so that they need not be in memory together.

  Args:
    all_outputs: dicts of float arrays, for the same patches; at least one.

  Returns:
    An `Averaged`. Where all outputs are equal, the means are exactly these and
    the standard deviations exactly 0.
  """
  mean, squares, members, marked, count = {}, {}, [], None, 0
  for count, outputs in enumerate(all_outputs, 1):
    if count == 1:
      mean = {key: np.zeros_like(x) for key, x in outputs.items()}
      squares = {key: mean[key] for key in _SPREAD if key in mean}
    # Welford's method.
    change = {key: x - mean[key] for key, x in outputs.items()}
    mean = {key: mean[key] + x / count for key, x in change.items()}
    squares = {
      key: x + change[key] * (outputs[key] - mean[key])
      for key, x in squares.items()
    }
    if 'class' in outputs:
      members.append(outputs['class'])
    if 'fine' in outputs:
      mask = outputs['fine'] >= metrics.THRESHOLD
      marked = mask if marked is None else marked | mask
  return Averaged(
    outputs=mean,
    sd={key: np.sqrt(x / count) for key, x in squares.items()},
    malignancy_members=np.stack(members) if members else None,
    marked=marked,
  )


def views(predict_fn, hu, *, symmetries):
  """The outputs for patches as they are, and for their other orientations.

  Args:
    predict_fn: (N, P, P) HU -> an output.
    hu: (N, P, P).
    symmetries: whether all rotations and reflections are wanted.

  Yields:
    One output, or `NUM_SYMMETRIES` with maps turned back; that for the patches
    as they are comes first.
  """
  if not symmetries:
    yield predict_fn(hu)
    return
  hu = np.asarray(hu)
  for reflected in (False, True):
    for quarter_turns in range(4):
      outputs = predict_fn(_turn(quarter_turns, reflected, hu))
      yield {
        key: _turn_back(quarter_turns, reflected, x) if x.ndim == 3 else x
        for key, x in outputs.items()
      }


def _turn(quarter_turns, reflected, maps):
  maps = maps[..., ::-1] if reflected else maps
  return np.rot90(maps, quarter_turns, axes=(1, 2))


def _turn_back(quarter_turns, reflected, maps):
  maps = np.rot90(maps, -quarter_turns, axes=(1, 2))
  return maps[..., ::-1] if reflected else maps


def disagreement(averaged):
  """How far outputs differ for each patch, as columns of records.

  Args:
    averaged: an `Averaged`.

  Returns:
    Of those that there are, 'malignancy_sd': (N,) standard deviation of the
    probability of malignancy, and 'fine_uncertainty': (N,) mean of the standard
    deviation of the fine probability over the pixels in at least one mask: the
    mask, and what is in doubt around it. 0 where all masks are empty, because
    they agree.
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
  """Models whose outputs are averaged, such as those of the folds.

  Attributes:
    models: of `model.Model`, or ensembles.
    symmetries: whether each of them sees a patch in all eight rotations and
      reflections.
    name: of the ensemble; by default the names of the models.
    simulated: whether any was trained on SIMULATED attenuation.
    metrics: what the ensemble scored, as a metrics.json; None where nobody has
      measured it.
    card: the model card, Markdown; None where there is none.
    temperature: by which logits of the mean probability of malignancy are
      divided: calibrated on validation nodules, or 1.
  """

  def __init__(
    self,
    models,
    *,
    symmetries=False,
    name=None,
    metrics=None,
    card=None,
    temperature=1.0,
  ):
    if not models:
      raise errors.InputError('an ensemble of no model: give at least one.')
    self.models = tuple(models)
    self.symmetries = symmetries
    self.name = name or ' + '.join(model.name for model in self.models)
    self.simulated = any(model.simulated for model in self.models)
    self.metrics = metrics
    self.card = card
    self.temperature = temperature

  @property
  def seen(self):
    """What any of the models has seen; None where one of them kept no list."""
    parts = [model.seen for model in self.models]
    return None if None in parts else seen_lib.union(parts)

  def __repr__(self):
    data = 'SIMULATED CT' if self.simulated else 'CT'
    return f'<mtnet_jax ensemble {self.name!r}, trained on {data}>'

  @functools.cached_property
  def fingerprint(self):
    """As `model.Model.fingerprint`."""
    parts = [model.fingerprint for model in self.models]
    settings = f'{self.symmetries} {self.temperature}'
    return hashlib.sha256(f'{settings} {parts}'.encode()).hexdigest()[:16]

  def predict(self, hu, pixel_spacing_mm):
    """As `model.Model.predict`, from the mean probabilities of all outputs.

    Returns:
      An `AveragedPrediction`; its members are the models, with `symmetries`
      the eight outputs of each.
    """
    averaged = self._average(hu, pixel_spacing_mm)
    return prediction.AveragedPrediction(
      **predictor.as_answer(self._calibrated(averaged.outputs)),
      malignancy_members=calibration.tempered(
        averaged.malignancy_members, self.temperature
      ),
      uncertainty=averaged.sd['fine'],
    )

  def outputs(self, hu, pixel_spacing_mm):
    """The mean probabilities behind `predict`, as `model.Model.outputs`."""
    return self._calibrated(self._average(hu, pixel_spacing_mm).outputs)

  def _average(self, hu, pixel_spacing_mm):
    return average(
      outputs
      for model in self.models
      for outputs in views(
        functools.partial(model.outputs, pixel_spacing_mm=pixel_spacing_mm),
        hu,
        symmetries=self.symmetries,
      )
    )

  def _calibrated(self, outputs):
    malignancy = calibration.tempered(outputs['class'], self.temperature)
    return {**outputs, 'class': malignancy}
