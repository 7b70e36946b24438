"""Lists the nodules and patients that a model was trained or selected on.

The seen.csv of a run directory or a bundle has a row per nodule: nodule_id,
patient_id, and used_for, which is train or validation. If training started from
another model, the nodules that the other model had seen are included.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import csv
import functools
import io
import os
import pathlib
from typing import NamedTuple

import numpy as np

from mtnet_jax.storage import files
from mtnet_jax.system import errors

FILE = 'seen.csv'
COLUMNS = ('nodule_id', 'patient_id', 'used_for')
# The first one counts if a patient was used for both.
USES = ('train', 'validation')
_MAX_ID = 200


class Seen(NamedTuple):
  """The nodules and patients that a model has seen.

  Attributes:
    rows: (nodule_id, patient_id, used_for) of each nodule.
    by_fold: whether the model had no list. The rows are then all nodules that
      a model of the same folds can have seen.
  """

  rows: frozenset[tuple[str, str, str]]
  by_fold: bool = False


def union(several: Sequence[Seen]) -> Seen:
  """Returns what several models together have seen."""
  return Seen(
    frozenset().union(*(one.rows for one in several)),
    any(one.by_fold for one in several),
  )


# Cached, since callers ask about many nodules, one at a time.
@functools.lru_cache(maxsize=4)
def patients(seen: Seen) -> dict[str, str]:
  """Returns patient_id -> 'train' or 'validation'."""
  return _uses((patient, use) for _, patient, use in seen.rows)


@functools.lru_cache(maxsize=4)
def nodules(seen: Seen) -> dict[str, str]:
  """Returns nodule_id -> 'train' or 'validation'."""
  return _uses((nodule, use) for nodule, _, use in seen.rows)


def _uses(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
  # Sorted so that 'train' comes last and overwrites 'validation'.
  ordered = sorted(pairs, key=lambda pair: -USES.index(pair[1]))
  return dict(ordered)


def used_for(seen: Seen, patient_ids: Iterable[object]) -> np.ndarray:
  """Returns what the patients of nodules were used for.

  Args:
    seen: `Seen`.
    patient_ids: (N,).

  Returns:
    (N,) strings: 'train', 'validation', or '' for an unknown patient.
  """
  uses = patients(seen)
  return np.array([uses.get(str(one), '') for one in patient_ids], 'U10')


def write(path: str | os.PathLike[str], seen: Seen) -> None:
  """Writes a seen.csv, sorted."""
  rows = sorted(seen.rows, key=lambda row: (USES.index(row[2]), row))
  files.write_csv(path, [dict(zip(COLUMNS, row, strict=True)) for row in rows])


def read(path: str | os.PathLike[str]) -> Seen:
  """Reads a seen.csv, which anyone may have written.

  Raises:
    errors.InputError: the file cannot be read, or is damaged.
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
        f'{path} is damaged: row {line} is not a nodule, a patient, and'
        f' {" or ".join(USES)}.'
      )
  return Seen(frozenset((row[0], row[1], row[2]) for row in rows))


def read_if_there(folder: pathlib.Path) -> Seen | None:
  """Reads a run's seen.csv; None for runs of earlier versions, without one."""
  path = folder / FILE
  return read(path) if path.exists() else None
