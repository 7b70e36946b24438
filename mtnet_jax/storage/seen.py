"""Which nodules and patients a model was trained on or chosen by.

seen.csv of a run directory or a bundle has a row for each: nodule_id,
patient_id, and used_for, which is train or validation. What the model started
from had seen is in it, too.
"""

import csv
import functools
import io
from typing import NamedTuple

import numpy as np

from mtnet_jax.storage import files
from mtnet_jax.system import errors

FILE = 'seen.csv'
COLUMNS = ('nodule_id', 'patient_id', 'used_for')
# The first one prevails where a patient was used for both.
USES = ('train', 'validation')
_MAX_ID = 200


class Seen(NamedTuple):
  """What a model has seen.

  Attributes:
    rows: (nodule_id, patient_id, used_for) of each nodule.
    by_fold: whether there was no list, so that the rows are what models of such
      folds have seen at most.
  """

  rows: frozenset
  by_fold: bool = False


def union(several):
  """What several models have seen together."""
  return Seen(
    frozenset().union(*(one.rows for one in several)),
    any(one.by_fold for one in several),
  )


# Of a model's list, which is asked about each of many nodules.
@functools.lru_cache(maxsize=4)
def patients(seen):
  """patient_id -> 'train' or 'validation'."""
  return _uses((patient, use) for _, patient, use in seen.rows)


@functools.lru_cache(maxsize=4)
def nodules(seen):
  """nodule_id -> 'train' or 'validation'."""
  return _uses((nodule, use) for nodule, _, use in seen.rows)


def _uses(pairs):
  # Sorted, so that training comes last and stays.
  ordered = sorted(pairs, key=lambda pair: -USES.index(pair[1]))
  return dict(ordered)


def used_for(seen, patient_ids):
  """What the patients of nodules were used for.

  Args:
    seen: `Seen`.
    patient_ids: (N,).

  Returns:
    (N,) of 'train', 'validation', or '' where a patient is unknown.
  """
  uses = patients(seen)
  return np.array([uses.get(str(one), '') for one in patient_ids], 'U10')


def write(path, seen):
  """Writes a seen.csv."""
  rows = sorted(seen.rows, key=lambda row: (USES.index(row[2]), row))
  files.write_csv(path, [dict(zip(COLUMNS, row, strict=True)) for row in rows])


def read(path):
  """Reads a seen.csv, which anyone may have written.

  Raises:
    errors.InputError: it cannot be read, or is damaged.
  """
  try:
    text = files.read_bytes(path).decode('utf-8')
    header, *rows = csv.reader(io.StringIO(text, newline=''), strict=True)
  except OSError as error:
    raise errors.InputError(
      f'{path} cannot be read: {error.strerror}.'
    ) from error
  except (csv.Error, UnicodeDecodeError, ValueError) as error:
    raise errors.InputError(f'{path} is damaged: {error}.') from error
  if tuple(header) != COLUMNS or not rows:
    raise errors.InputError(
      f'{path} is damaged: it must have the columns {", ".join(COLUMNS)}, and a'
      ' row per nodule.'
    )
  for line, row in enumerate(rows, 2):
    if (
      len(row) != len(COLUMNS)
      or row[2] not in USES
      or not all(0 < len(cell) <= _MAX_ID for cell in row)
      or not all(cell.isprintable() for cell in row)
    ):
      raise errors.InputError(
        f'{path} is damaged: row {line} is no nodule, patient, and'
        f' {" or ".join(USES)}.'
      )
  return Seen(frozenset(map(tuple, rows)))


def read_if_there(folder):
  """`read` of a run directory's; None where an earlier version made the run."""
  path = folder / FILE
  return read(path) if path.exists() else None
