"""Writes the table and the page of `predict --annotated` for many series."""

from collections.abc import Iterable
from collections.abc import Sequence
import pathlib
from typing import TYPE_CHECKING
from typing import Any

from mtnet_jax.ct import many_series
from mtnet_jax.ct import out_folder
from mtnet_jax.ct import results
from mtnet_jax.ct import rows as rows_lib
from mtnet_jax.reports import nodule_page
from mtnet_jax.storage import files
from mtnet_jax.storage import together

if TYPE_CHECKING:
  from mtnet_jax.ct import model_protocol

FAILED = rows_lib.FAILED


def rows(
  scan_results: Iterable[many_series.ScanResult],
) -> list[dict[str, Any]]:
  """Makes a row for each nodule of all series.

  Args:
    scan_results: from `many_series.run`.

  Returns:
    Dicts with the series, the patient, the nodule, 'folder' of its series,
    'status' as in predictions.json or 'failed', numbers as in `fields`, and the
    notes as one text.
  """
  found: list[dict[str, Any]] = []
  for result in scan_results:
    series = {
      'series_uid': result.scan.series.uid,
      'patient_id': result.scan.patient_id,
      'folder': result.scan.name,
    }
    if result.predictions is None:
      found += [
        {
          **series,
          **rows_lib.failed(
            nodule_id, 'its series failed: see the error on the terminal'
          ),
        }
        for nodule_id in result.scan.nodule_ids
      ]
      continue
    found += [
      {**series, **row} for row in rows_lib.from_index(result.predictions)
    ]
  return found


def write(
  out: pathlib.Path,
  scan_results: Sequence[many_series.ScanResult],
  model: 'model_protocol.Model',
  notes: Sequence[str],
) -> list[dict[str, Any]]:
  """Writes the table and the page.

  Args:
    out: the output folder.
    scan_results: from `many_series.run`.
    model: a model, or several as one.
    notes: doubts about all of the results.

  Returns:
    The rows of the table, see `rows`.
  """
  found = rows(scan_results)
  simulated = any(row['simulated_ct'] for row in found)
  page = nodule_page.render_many(
    found,
    model=model.name,
    simulated_ct=simulated,
    trained_on_simulated=model.simulated,
    notes=notes,
  )
  with together.together(
    out, out_folder.TABLE, out_folder.summary_files
  ) as staged:
    files.write_csv(staged / out_folder.TABLE, found)
    files.write_text(staged / out_folder.PAGE, page)
  return found


def is_complete(scan_results: Iterable[many_series.ScanResult]) -> bool:
  """Whether no series, no point and no slice failed or was missing."""
  return all(
    result.predictions and results.is_complete(result.predictions)
    for result in scan_results
  )
