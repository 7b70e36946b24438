"""Computes results by size, texture and agreement of the readers.

Patients are resampled within each group. The edges of groups are the same in
every run, so that runs can be compared: diameters have edges at Fleischner's
6 and 8 mm, and texture halfway between the ratings that LIDC calls non-solid
(1), part-solid (3) and solid (5).
"""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
from typing import Any
from typing import NamedTuple

import numpy as np

from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores


class Group(NamedTuple):
  """Results of the nodules in one group.

  Attributes:
    family: the quantity by which nodules are grouped.
    name: the range of that quantity.
    nodules: number of nodules.
    patients: number of patients.
    labelled: number of nodules with a label.
    malignant: number of malignant nodules.
    estimates: name -> {'value', 'ci95'}: 'reader_dice' (readers with each
      other); '<network>_dice'; 'accuracy' and 'auc' of the classifier.
  """

  family: str
  name: str
  nodules: int
  patients: int
  labelled: int
  malignant: int
  estimates: dict[str, Any]


# Family, column of the records, edges, and names of the groups between them. A
# group includes its lower edge.
_FAMILIES = (
  (
    'Diameter',
    'diameter_mm',
    (0, 6, 8, 15, np.inf),
    ('below 6 mm', '6 to 8 mm', '8 to 15 mm', '15 mm and more'),
  ),
  (
    'Texture (mean rating)',
    'texture',
    (0, 2, 4, np.inf),
    ('non-solid, below 2', 'part-solid, 2 to 4', 'solid, 4 and more'),
  ),
  (
    "Readers' Dice with each other",
    'reader_dice',
    (-np.inf, 0.75, 0.85, np.inf),
    ('below 75 %', '75 to 85 %', '85 % and more'),
  ),
  (
    'Readers who marked it',
    'num_readers',
    (1, 2, 3, 4, 5, np.inf),
    ('1', '2', '3', '4', 'more'),
  ),
)


def make(records: Sequence[Mapping[str, Any]], *, seed: int) -> list[Group]:
  """Makes all groups that have nodules.

  Args:
    records: from `records.make_records`.
    seed: seed of the resampling.

  Returns:
    The groups, without those of families whose column the records lack.
  """
  groups = []
  for family, key, edges, names in _FAMILIES:
    values = records_lib.column(records, key)
    for name, (low, high) in zip(names, itertools.pairwise(edges), strict=True):
      inside = records_lib.select(records, (low <= values) & (values < high))
      if inside:
        groups.append(_group(family, name, inside, seed))
  return groups


def _group(family, name, records, seed):
  weights = records_lib.patient_weights(records, seed=seed)
  masks = records_lib.masks_of(records)
  estimates = {
    key: bootstrap.mean(records_lib.column(records, key), weights)
    for key in ('reader_dice', *(f'{mask}_dice' for mask in masks))
  }
  if 'class' in records_lib.outputs_of(records):
    found = scores.estimates(scores.of_output(records, 'class', weights))
    estimates.update({metric: found[metric] for metric in ('accuracy', 'auc')})
  return Group(family, name, **records_lib.count(records), estimates=estimates)
