"""Results by size, texture and the readers' agreement.

Within each group patients are resampled anew. Limits are the same in every run,
so that runs can be compared: sizes at Fleischner's 6 and 8 mm, texture halfway
between the ratings that LIDC calls non-solid (1), part-solid (3) and solid (5).
"""

from typing import NamedTuple

import numpy as np

from mtnet_jax.evaluation import bootstrap
from mtnet_jax.evaluation import records as records_lib
from mtnet_jax.evaluation import scores


class Group(NamedTuple):
  """Nodules that have something in common.

  Attributes:
    family: what they are grouped by.
    name: which of its groups.
    nodules, patients, labelled, malignant: how many.
    estimates: name -> {'value', 'ci95'}: 'reader_dice' (readers with each
      other); '<network>_dice'; 'accuracy' and 'auc' of the classifier.
  """

  family: str
  name: str
  nodules: int
  patients: int
  labelled: int
  malignant: int
  estimates: dict


# Family, column of the records, and groups: name, from (included), to.
_FAMILIES = (
  (
    'Diameter',
    'diameter_mm',
    (
      ('below 6 mm', 0, 6),
      ('6 to 8 mm', 6, 8),
      ('8 to 15 mm', 8, 15),
      ('15 mm and more', 15, np.inf),
    ),
  ),
  (
    'Texture (mean rating)',
    'texture',
    (
      ('non-solid, below 2', 0, 2),
      ('part-solid, 2 to 4', 2, 4),
      ('solid, 4 and more', 4, np.inf),
    ),
  ),
  (
    "Readers' Dice with each other",
    'reader_dice',
    (
      ('below 75 %', -np.inf, 0.75),
      ('75 to 85 %', 0.75, 0.85),
      ('85 % and more', 0.85, np.inf),
    ),
  ),
  (
    'Readers who marked it',
    'num_readers',
    (
      ('1', 1, 2),
      ('2', 2, 3),
      ('3', 3, 4),
      ('4', 4, 5),
      ('more', 5, np.inf),
    ),
  ),
)


def make(records, *, seed):
  """All groups that have nodules.

  Args:
    records: of `records.make_records`.
    seed: of the resampling.

  Returns:
    A list of `Group`; families of which the records say nothing are left out.
  """
  groups = []
  for family, key, limits in _FAMILIES:
    values = records_lib.column(records, key)
    for name, low, high in limits:
      inside = [
        record
        for record, value in zip(records, values, strict=True)
        if low <= value < high
      ]
      if inside:
        groups.append(_group(family, name, inside, seed))
  return groups


def _group(family, name, records, seed):
  patients = [record['patient_id'] for record in records]
  weights = bootstrap.patient_weights(patients, seed=seed)
  labels = records_lib.column(records, 'label')
  estimates = {
    key: bootstrap.mean(records_lib.column(records, key), weights)
    for key in (
      'reader_dice',
      *(f'{network}_dice' for network in records_lib.masks_of(records)),
    )
  }
  if 'malignancy_probability' in records[0]:
    known = labels >= 0
    found = scores.replicated(
      scores.classification,
      records_lib.column(records, 'malignancy_probability')[known],
      labels[known],
      None if weights is None else weights[:, known],
    )
    for metric in ('accuracy', 'auc'):
      estimates[metric] = bootstrap.estimate(*found[metric])
  return Group(
    family,
    name,
    len(records),
    len(set(patients)),
    int((labels >= 0).sum()),
    int((labels == 1).sum()),
    estimates,
  )
