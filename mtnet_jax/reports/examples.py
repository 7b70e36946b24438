"""Chooses the nodules that a report shows, and collects their images."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.data import nodules as nodules_lib
from mtnet_jax.evaluation import records as records_lib

_MAX_PER_RANK = 2


class Example(NamedTuple):
  """A nodule of the report's figure.

  Attributes:
    rank: 'best', 'median' or 'worst'.
    record: the nodule's record, from `records.make_records`.
    image: (P, P) HU.
    truth: (P, P) bool, the readers' consensus.
    masks: 'coarse' and 'fine', if the run has them -> (P, P) bool.
    cam: (P, P) class activation map; None without a classifier.
  """

  rank: str
  record: Mapping[str, Any]
  image: np.ndarray
  truth: np.ndarray
  masks: dict[str, np.ndarray]
  cam: np.ndarray | None


def order_by(
  records: Sequence[Mapping[str, Any]],
) -> tuple[str, np.ndarray]:
  """Returns the value that ranks nodules.

  This is the Dice index of the last mask or, without masks, the probability of
  the right label (0.5 for a nodule without a label).

  Args:
    records: of all nodules, from `records.make_records`.

  Returns:
    The name of the value, and (N,) values, higher is better.
  """
  masks = records_lib.masks_of(records)
  if masks:
    dice = records_lib.column(records, f'{masks[-1]}_dice')
    return f'Dice of the {masks[-1]} mask', dice
  malignancy = records_lib.column(records, 'malignancy_probability')
  labels = records_lib.column(records, 'label')
  return 'probability of the right label', np.where(
    labels < 0, 0.5, np.where(labels == 1, malignancy, 1 - malignancy)
  )


def choose(values: np.ndarray | Sequence[float]) -> list[tuple[str, int]]:
  """Chooses the best, median and worst nodules, each at most once.

  Args:
    values: (N,), higher is better.

  Returns:
    (rank, index) from best to worst: two per rank if there are at least six
    nodules, otherwise one.
  """
  order = np.argsort(-np.asarray(values), kind='stable').tolist()
  per_rank = max(1, min(_MAX_PER_RANK, len(order) // 3))
  middle = (len(order) - per_rank) // 2
  ranks: dict[int, str] = {}
  for rank, indices in (
    ('best', order[:per_rank]),
    ('worst', order[-per_rank:]),
    ('median', order[middle : middle + per_rank]),
  ):
    for index in indices:
      ranks.setdefault(index, rank)
  return [(ranks[index], index) for index in order if index in ranks]


def pick(
  records: Sequence[Mapping[str, Any]],
  nodules: nodules_lib.Nodules,
  outputs: Mapping[str, np.ndarray],
) -> list[Example]:
  """Returns the best, median and worst nodules of a split.

  Args:
    records: of all nodules of the split, from `records.make_records`.
    nodules: the split.
    outputs: `outputs.predict` for the whole split.
  """
  _, values = order_by(records)
  chosen = choose(values)
  indices = [index for _, index in chosen]
  return collect(
    chosen,
    records,
    nodules.take(indices),
    {name: output[indices] for name, output in outputs.items()},
  )


def collect(
  chosen: Sequence[tuple[str, int]],
  records: Sequence[Mapping[str, Any]],
  nodules: nodules_lib.Nodules,
  outputs: Mapping[str, np.ndarray],
) -> list[Example]:
  """Returns the examples for chosen nodules.

  Args:
    chosen: (rank, index) of each, from `choose`.
    records: of all nodules of the split, from `records.make_records`.
    nodules: only the chosen nodules, in the order of `chosen`.
    outputs: `outputs.predict` for `nodules`.
  """
  return [
    Example(
      rank,
      records[index],
      nodules.image[i],
      nodules.mask[i] > 0,
      {
        name: outputs[name][i] >= metrics.THRESHOLD
        for name in ('coarse', 'fine')
        if name in outputs
      },
      outputs['cam'][i] if 'cam' in outputs else None,
    )
    for i, (rank, index) in enumerate(chosen)
  ]
