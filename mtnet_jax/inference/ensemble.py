"""Averages outputs for the same patches, over models and over symmetries.

Probabilities are averaged. Their disagreement is kept: the malignancy of every
output, and a map of the standard deviation of the fine probability. Neither is
a confidence interval, because models trained on the same data share its faults.
They show how much a result depends on the seed, the fold or the orientation of
the patch.

An output is what `predictor.predict_step` returns: a dict of arrays.
"""

from __future__ import annotations  # for pydoc, which spells ArrayLike out

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import hashlib
from typing import Any
from typing import NamedTuple
from typing import Protocol

from jax.typing import ArrayLike
import numpy as np

from mtnet_jax import metrics
from mtnet_jax.evaluation import calibration
from mtnet_jax.inference import prediction
from mtnet_jax.models import predictor
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors

# Rotations and reflections of a square.
NUM_SYMMETRIES = 8
# Arrays whose standard deviation is kept.
_SPREAD = ('class', 'fine')


class Member(Protocol):
  """A model whose outputs can be averaged: a `model.Model`, or an `Ensemble`.

  Attributes:
    name: name of the model.
    simulated: whether it was trained on SIMULATED attenuation.
  """

  name: str
  simulated: bool

  @property
  def seen(self) -> seen_lib.Seen | None:
    """Nodules and patients used in training or model selection, if listed."""

  @property
  def fingerprint(self) -> str:
    """A hash of all that determines the predictions."""

  def outputs(
    self, hu: ArrayLike, pixel_spacing_mm: ArrayLike
  ) -> dict[str, np.ndarray]:
    """Returns the probabilities for patches; see `model.Model.outputs`."""


class Averaged(NamedTuple):
  """Means of M outputs for the same N patches, and their disagreement.

  Attributes:
    outputs: means, by the names of the arrays.
    sd: standard deviations (divided by M, not M - 1) of 'class' (N,) and 'fine'
      (N, P, P), if the outputs have them.
    malignancy_members: (M, N), 'class' of each output; None without 'class'.
    marked: (N, P, P) bool, pixels in at least one of the fine masks; None
      without 'fine'.
  """

  outputs: dict[str, np.ndarray]
  sd: dict[str, np.ndarray]
  malignancy_members: np.ndarray | None
  marked: np.ndarray | None


def average(all_outputs: Iterable[Mapping[str, np.ndarray]]) -> Averaged:
  """Averages outputs one by one, so that memory holds one at a time.

  Args:
    all_outputs: dicts of float arrays, for the same patches; at least one.

  Returns:
    The means and standard deviations. If all outputs are equal, the means equal
    them exactly and the standard deviations are exactly 0.
  """
  mean: dict[str, np.ndarray] = {}
  squares: dict[str, np.ndarray] = {}
  members, marked, num_outputs = [], None, 0
  for num_outputs, outputs in enumerate(all_outputs, 1):
    if num_outputs == 1:
      mean = {key: np.zeros_like(x) for key, x in outputs.items()}
      squares = {key: mean[key] for key in _SPREAD if key in mean}
    # Welford (1962): running means, and sums of squared deviations.
    change = {key: x - mean[key] for key, x in outputs.items()}
    mean = {key: mean[key] + x / num_outputs for key, x in change.items()}
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
    sd={key: np.sqrt(x / num_outputs) for key, x in squares.items()},
    malignancy_members=np.stack(members) if members else None,
    marked=marked,
  )


def views(
  predict_fn: Callable[[Any], Mapping[str, np.ndarray]],
  hu: ArrayLike,
  *,
  symmetries: bool,
) -> Iterator[Mapping[str, np.ndarray]]:
  """Yields the outputs for patches, and on request for their orientations.

  Args:
    predict_fn: (N, P, P) HU -> an output.
    hu: (N, P, P).
    symmetries: whether to predict all rotations and reflections.

  Yields:
    One output; with `symmetries` all `NUM_SYMMETRIES`, with their maps rotated
    back, first that for the unrotated patches.
  """
  if not symmetries:
    yield predict_fn(hu)
    return
  hu = np.asarray(hu)
  for reflected in (False, True):
    for quarter_turns in range(4):
      outputs = predict_fn(_rotate(quarter_turns, reflected, hu))
      yield {
        key: _rotate_back(quarter_turns, reflected, x) if x.ndim == 3 else x
        for key, x in outputs.items()
      }


def _rotate(quarter_turns, reflected, maps):
  maps = maps[..., ::-1] if reflected else maps
  return np.rot90(maps, quarter_turns, axes=(1, 2))


def _rotate_back(quarter_turns, reflected, maps):
  maps = np.rot90(maps, -quarter_turns, axes=(1, 2))
  return maps[..., ::-1] if reflected else maps


def disagreement(averaged: Averaged) -> dict[str, np.ndarray]:
  """Computes how far outputs differ for each patch, as columns of records.

  Returns:
    'malignancy_sd': (N,) standard deviation of the probability of malignancy,
    if it was predicted. 'fine_uncertainty', if there are fine masks: (N,) mean
    standard deviation of the fine probability, over the pixels in at least one
    mask; 0 if all masks are empty, because they agree.
  """
  columns = {}
  if 'class' in averaged.sd:
    columns['malignancy_sd'] = averaged.sd['class']
  if 'fine' in averaged.sd:
    assert averaged.marked is not None  # `average` computes both from 'fine'.
    sums = np.sum(averaged.sd['fine'], axis=(1, 2), where=averaged.marked)
    num_pixels = np.sum(averaged.marked, axis=(1, 2))
    columns['fine_uncertainty'] = sums / np.maximum(num_pixels, 1)
  return columns


class Ensemble:
  """Models whose outputs are averaged, such as those of several folds.

  Attributes:
    models: the members.
    symmetries: whether each member predicts a patch in all eight rotations and
      reflections.
    name: name of the ensemble; by default the names of its members.
    simulated: whether any member was trained on SIMULATED attenuation.
    metrics: results of the ensemble, as in metrics.json; None if it was not
      evaluated.
    card: model card, Markdown; None without one.
    temperature: divisor of the logits of the mean probability of malignancy:
      calibrated on validation nodules, or 1.
  """

  def __init__(
    self,
    models: Sequence[Member],
    *,
    symmetries: bool = False,
    name: str | None = None,
    metrics: dict[str, Any] | None = None,
    card: str | None = None,
    temperature: float = 1.0,
  ):
    if not models:
      raise errors.InputError(
        'an ensemble needs models, but the list is empty: give at least one.'
      )
    self.models = tuple(models)
    self.symmetries = symmetries
    self.name: str = name or ' + '.join(model.name for model in self.models)
    self.simulated: bool = any(model.simulated for model in self.models)
    self.metrics = metrics
    self.card = card
    self.temperature = temperature

  @property
  def seen(self) -> seen_lib.Seen | None:
    """What any member has seen; None if the list of one of them is missing."""
    seen = [model.seen for model in self.models]
    known = [one for one in seen if one is not None]
    return seen_lib.union(known) if len(known) == len(seen) else None

  def __repr__(self) -> str:
    data = 'SIMULATED CT' if self.simulated else 'CT'
    return f'<mtnet_jax ensemble {self.name!r}, trained on {data}>'

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of all that determines the predictions, as of `model.Model`."""
    parts = [model.fingerprint for model in self.models]
    settings = f'{self.symmetries} {self.temperature}'
    return hashlib.sha256(f'{settings} {parts}'.encode()).hexdigest()[:16]

  def predict(
    self, hu: ArrayLike, pixel_spacing_mm: ArrayLike
  ) -> prediction.AveragedPrediction:
    """Predicts as `model.Model.predict`, from the mean probabilities.

    Returns:
      A prediction with one `malignancy_members` per model; with `symmetries`,
      eight per model.
    """
    averaged = self._average(hu, pixel_spacing_mm)
    # Every model has a Class-net.
    assert averaged.malignancy_members is not None
    return prediction.AveragedPrediction(
      **predictor.as_answer(self._calibrated(averaged.outputs)),
      malignancy_members=calibration.tempered(
        averaged.malignancy_members, self.temperature
      ),
      uncertainty=averaged.sd['fine'],
    )

  def outputs(
    self, hu: ArrayLike, pixel_spacing_mm: ArrayLike
  ) -> dict[str, np.ndarray]:
    """Returns the mean probabilities behind `predict`."""
    return self._calibrated(self._average(hu, pixel_spacing_mm).outputs)

  def _average(self, hu: ArrayLike, pixel_spacing_mm: ArrayLike) -> Averaged:
    return average(
      outputs
      for model in self.models
      for outputs in views(
        functools.partial(model.outputs, pixel_spacing_mm=pixel_spacing_mm),
        hu,
        symmetries=self.symmetries,
      )
    )

  def _calibrated(
    self, outputs: dict[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    malignancy = calibration.tempered(outputs['class'], self.temperature)
    return {**outputs, 'class': malignancy}
