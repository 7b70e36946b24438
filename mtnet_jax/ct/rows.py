"""Makes rows of predictions.csv from the predictions.json of a series."""

from collections.abc import Mapping
from typing import Any

FAILED = 'failed'  # status of a nodule that was not predicted

# Fields of a record, and of its mask, that become columns of the same name.
_RECORD = (
  'simulated_ct',
  'trained_on_simulated',
  'malignancy_probability',
  'coarse_dice',
  'fine_dice',
)
_MASK = (
  'diameter_mm',
  'area_mm2',
  'volume_mm3',
  'volume_is_lower_bound',
  'slices',
)
# Field of a record's `readers` -> column.
_READERS = {
  'num_readers': 'num_readers',
  'diameter_mm': 'readers_diameter_mm',
  'malignancy_rating_mean': 'malignancy_rating_mean',
  'split': 'split',
}
_TEXTS = ('nodule_id', 'status', 'split', 'notes')


def from_index(index: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Makes a row for each point of a series, the failed points last.

  Args:
    index: content of the series' predictions.json.

  Returns:
    The rows, without the columns that name the series.

  Raises:
    LookupError: a field is missing.
    TypeError: a field has another type than `results.write` gives it.
  """
  found = [
    *(_of_record(record) for record in index['points']),
    *(failed(fault['id'], fault['reason']) for fault in index['failed']),
  ]
  # The page formats numbers, and anyone may have edited the file.
  for row in found:
    for name, value in row.items():
      kind = str if name in _TEXTS else (int, float)
      if value is not None and not isinstance(value, kind):
        raise TypeError(f'{name} is {value!r}')
  return found


def _of_record(record):
  readers = record['readers']
  return {
    'nodule_id': record['id'],
    'status': record['status'],
    **{name: record[name] for name in _RECORD},
    **{name: record['mask'][name] for name in _MASK},
    **{column: readers[name] for name, column in _READERS.items()},
    'notes': '; '.join(record['notes']),
  }


def failed(nodule_id: str, reason: str) -> dict[str, Any]:
  """The row, without numbers, of a nodule that was not predicted."""
  names = (*_RECORD, *_MASK, *_READERS.values())
  return {
    'nodule_id': nodule_id,
    'status': FAILED,
    **dict.fromkeys(names),
    'notes': reason,
  }
