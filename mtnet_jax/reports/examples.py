"""Which nodules a report shows, and what is shown of them."""

from typing import NamedTuple

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.evaluation import records as records_lib

_MAX_PER_RANK = 2


class Example(NamedTuple):
  """A nodule of the report's figure.

  Attributes:
    rank: 'best', 'median' or 'worst'.
    record: of `records.make_records`.
    image: (P, P) HU.
    truth: (P, P) bool, the readers' consensus.
    masks: 'coarse' and 'fine', those that the run has -> (P, P) bool.
    cam: (P, P) class activation map; None without a classifier.
  """

  rank: str
  record: dict
  image: np.ndarray
  truth: np.ndarray
  masks: dict
  cam: np.ndarray | None


def order_by(records):
  """What ranks the nodules: its name and (N,) values, higher is better.

  The Dice of the last mask; without masks, the probability of the right label
  (of one half where it is open).
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


def choose(values):
  """The best, median and worst nodules, each at most once.

  Args:
    values: (N,), higher is better.

  Returns:
    List of (rank, index), from best to worst: two of each where there are
    six nodules, one of each where there are three.
  """
  order = np.argsort(-np.asarray(values), kind='stable').tolist()
  each = max(1, min(_MAX_PER_RANK, len(order) // 3))
  middle = (len(order) - each) // 2
  ranks = {}
  for rank, part in (
    ('best', order[:each]),
    ('worst', order[-each:]),
    ('median', order[middle : middle + each]),
  ):
    for index in part:
      ranks.setdefault(index, rank)
  return [(ranks[index], index) for index in order if index in ranks]


def pick(records, nodules, outputs):
  """The best, median and worst nodules of a split, as the figure shows them.

  Args:
    records: of all its nodules, of `records.make_records`.
    nodules: all of them, `nodules.Nodules`.
    outputs: of `outputs.predict`, for all of them.

  Returns:
    A list of `Example`.
  """
  _, values = order_by(records)
  chosen = choose(values)
  shown = [index for _, index in chosen]
  return collect(
    chosen,
    records,
    nodules.take(shown),
    {name: output[shown] for name, output in outputs.items()},
  )


def collect(chosen, records, nodules, outputs):
  """What the figure shows of some nodules.

  Args:
    chosen: of `choose`.
    records: of all nodules, of `records.make_records`.
    nodules: the chosen ones in their order, `nodules.Nodules`.
    outputs: of `outputs.predict`, for the chosen ones.

  Returns:
    A list of `Example`.
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
