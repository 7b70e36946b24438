"""What `predict --annotated` leaves of many series, beside their folders."""

from mtnet_jax.ct import many_series
from mtnet_jax.ct import results
from mtnet_jax.reports import nodule_page
from mtnet_jax.storage import files
from mtnet_jax.storage import together

TABLE, PAGE = many_series.TABLE, many_series.PAGE
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


def rows(done):
  """A row for each nodule of all series; see `fields` for the numbers.

  Args:
    done: of `many_series.run`.

  Returns:
    A list of dicts: who it is, 'folder' of its series, 'status' as in
    predictions.json or 'failed', numbers, and notes in one text.
  """
  found = []
  for one in done:
    who = {
      'series_uid': one.scan.series.uid,
      'patient_id': one.scan.patient_id,
      'folder': one.scan.name,
    }
    if one.index is None:
      found += [
        {
          **who,
          **_failed(nodule_id, 'its series failed, as the terminal said'),
        }
        for nodule_id in one.scan.nodule_ids
      ]
      continue
    found += [{**who, **_row(record)} for record in one.index['points']]
    found += [
      {**who, **_failed(fault['id'], fault['reason'])}
      for fault in one.index['failed']
    ]
  return found


def _row(record):
  readers = record['readers']
  return {
    'nodule_id': record['id'],
    'status': record['status'],
    **{name: record[name] for name in _RECORD},
    **{name: record['mask'][name] for name in _MASK},
    **{column: readers[name] for name, column in _READERS.items()},
    'notes': '; '.join(record['notes']),
  }


def _failed(nodule_id, reason):
  names = (*_RECORD, *_MASK, *_READERS.values())
  return {
    'nodule_id': nodule_id,
    'status': FAILED,
    **dict.fromkeys(names),
    'notes': reason,
  }


def write(out, done, model, notes):
  """Writes the table and the page.

  Args:
    out: `pathlib.Path` of the folder.
    done: of `many_series.run`.
    model: `model.Model`, or several as one.
    notes: on all of it, a clause each.

  Returns:
    `rows`.
  """
  found = rows(done)
  simulated = any(row['simulated_ct'] for row in found)
  page = nodule_page.render_many(
    found,
    model=model.name,
    simulated_ct=simulated,
    trained_on_simulated=model.simulated,
    notes=notes,
  )
  with together.together(out, TABLE) as staged:
    files.write_csv(staged / TABLE, found)
    files.write_text(staged / PAGE, page)
  return found


def is_complete(done):
  """Whether all was done of all series."""
  return all(one.index and results.is_complete(one.index) for one in done)
