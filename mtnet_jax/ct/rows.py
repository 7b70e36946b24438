"""Rows of predictions.csv, of what predictions.json of a series holds."""

FAILED = 'failed'

# Of a record and its mask.
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
# Columns on the readers by the names of a record's `readers`.
_READERS = {
  'num_readers': 'num_readers',
  'diameter_mm': 'readers_diameter_mm',
  'malignancy_rating_mean': 'malignancy_rating_mean',
  'split': 'split',
}
_TEXTS = ('nodule_id', 'status', 'split', 'notes')


def of_index(index):
  """A row for each point of a series, the failed ones last.

  Args:
    index: what its predictions.json holds.

  Returns:
    A list of dicts, which do not say which series it is.

  Raises:
    LookupError, TypeError: it is not as `results.write` makes it.
  """
  found = [
    *(_of_record(record) for record in index['points']),
    *(failed(fault['id'], fault['reason']) for fault in index['failed']),
  ]
  # A page rounds numbers, and they may be anybody's.
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


def failed(nodule_id, reason):
  """The row of a nodule that was not done, with no numbers."""
  names = (*_RECORD, *_MASK, *_READERS.values())
  return {
    'nodule_id': nodule_id,
    'status': FAILED,
    **dict.fromkeys(names),
    'notes': reason,
  }
