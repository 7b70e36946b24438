"""Writes what a build left out, and why: quarantine.json and quarantine.csv.

Both files are in the folder of the dataset. A loss without nodules is a broken
file that no nodule needs.
"""

from collections.abc import Iterable
import csv
import json
import os
import pathlib
from typing import NamedTuple

from tfds_lidc.ct import index

FILE_NAMES = ('quarantine.json', 'quarantine.csv')


class Loss(NamedTuple):
  """A fault, and the nodules that it costs."""

  path: str  # a file, or the folder in which one is missing
  fault: str  # a word, such as 'truncated'
  reason: str  # continues a sentence that begins with the path
  nodules: tuple[str, ...] = ()


def merge(
  losses: Iterable[Loss], faults: Iterable[index.FileFault]
) -> list[Loss]:
  """Joins losses by path and reason; those that cost nodules come first.

  Args:
    losses: losses of nodules that could not be read.
    faults: faults of all files, even of those that no nodule needs.

  Returns:
    The joined losses.
  """
  merged: dict[tuple[str, str, str], list[str]] = {
    (f.path, f.kind, f.reason): [] for f in faults
  }
  for loss in losses:
    merged.setdefault(loss[:3], []).extend(loss.nodules)
  return sorted(
    (
      Loss(path, fault, reason, tuple(dict.fromkeys(nodules)))
      for (path, fault, reason), nodules in merged.items()
    ),
    key=lambda loss: (not loss.nodules, loss.path, loss.reason),
  )


def describe(losses: list[Loss]) -> str:
  """Formats the first losses, and the way out, for an error message."""
  shown = [
    f'{loss.path} {loss.reason}'
    + (f', needed by nodule {", ".join(loss.nodules)}' if loss.nodules else '')
    for loss in losses[:3]
  ]
  more = f' (and {len(losses) - 3} more)' if len(losses) > 3 else ''
  return (
    f'{"; ".join(shown)}{more}; download it again, or build without --strict '
    'to leave it out'
  )


def write(
  directory: str | os.PathLike[str], losses: list[Loss], counts: dict[str, int]
) -> None:
  """Writes both files; only the JSON contains `counts`."""
  directory = pathlib.Path(directory)
  content = {'counts': counts, 'losses': [loss._asdict() for loss in losses]}
  (directory / FILE_NAMES[0]).write_text(
    json.dumps(content, indent=1) + '\n', encoding='utf-8'
  )
  # File names may contain any bytes; those that are not text are escaped.
  with open(
    directory / FILE_NAMES[1],
    'w',
    newline='',
    encoding='utf-8',
    errors='backslashreplace',
  ) as f:
    writer = csv.writer(f)
    writer.writerow(Loss._fields)
    for loss in losses:
      writer.writerow([*loss[:3], ';'.join(loss.nodules)])
