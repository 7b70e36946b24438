"""What `predict --annotated` leaves of many series, beside their folders."""

from mtnet_jax.ct import out_folder
from mtnet_jax.ct import results
from mtnet_jax.ct import rows as rows_lib
from mtnet_jax.reports import nodule_page
from mtnet_jax.storage import files
from mtnet_jax.storage import together

FAILED = rows_lib.FAILED


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
          **rows_lib.failed(
            nodule_id, 'its series failed, as the terminal said'
          ),
        }
        for nodule_id in one.scan.nodule_ids
      ]
      continue
    found += [{**who, **row} for row in rows_lib.of_index(one.index)]
  return found


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
  with together.together(
    out, out_folder.TABLE, out_folder.of_many_series
  ) as staged:
    files.write_csv(staged / out_folder.TABLE, found)
    files.write_text(staged / out_folder.PAGE, page)
  return found


def is_complete(done):
  """Whether all was done of all series."""
  return all(one.index and results.is_complete(one.index) for one in done)
