"""`predict --annotated` on a folder of many series of LIDC-IDRI.

Each series gets a folder of its own, which `results` writes. A series that is
already done with the same model and options is skipped.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import tqdm

import mtnet_jax
from mtnet_jax.ct import dicom_volume
from mtnet_jax.ct import out_folder
from mtnet_jax.ct import places
from mtnet_jax.ct import rows
from mtnet_jax.ct import search
from mtnet_jax.storage import files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.storage import together
from mtnet_jax.system import errors

if TYPE_CHECKING:
  from mtnet_jax.ct import model_protocol
  from tfds_lidc.ct import index as dicom_index
  from tfds_lidc.ct import series as dicom_series


class Scan(NamedTuple):
  """A series to predict.

  Attributes:
    name: name of its folder, such as LIDC-IDRI-0001_12; the ids of its nodules
      begin with it.
    patient_id: as in LIDC-IDRI.
    series: the DICOM files.
    nodule_ids: ids of its nodules.
  """

  name: str
  patient_id: str
  series: 'dicom_series.Series'
  nodule_ids: list[str]


class ScanResult(NamedTuple):
  """The result of a series.

  Attributes:
    scan: the series.
    predictions: content of its predictions.json; None if the series failed.
    skipped: whether the predictions are of an earlier run.
  """

  scan: Scan
  predictions: dict[str, Any] | None
  skipped: bool = False


def plan(
  series_index: 'dicom_index.SeriesIndex', policy_name: str
) -> tuple[list[Scan], list[str]]:
  """Finds the series that have annotated nodules.

  Args:
    series_index: from `series.read`.
    policy_name: 'all' or 'paper'.

  Returns:
    The series to predict, and notes on the series that are left out.

  Raises:
    errors.InputError: no series has annotated nodules.
  """
  from tfds_lidc.nodules import annotations
  from tfds_lidc.nodules import selection

  nodules: dict[str, list[selection.Nodule]] = {}
  for nodule in selection.select(selection.POLICIES[policy_name]):
    nodules.setdefault(nodule.series_uid, []).append(nodule)
  scans = [
    Scan(
      name=found[0].nodule_id.rpartition('_')[0],
      patient_id=found[0].patient_id,
      series=series_index.series[uid],
      nodule_ids=[nodule.nodule_id for nodule in found],
    )
    for uid, found in nodules.items()
    if uid in series_index.series
  ]
  known = annotations.scans().keys() & series_index.series.keys()
  reasons = {
    'are not of LIDC-IDRI': len(series_index.series) - len(known),
    f'have no nodule of the selection {policy_name!r}': len(known) - len(scans),
  }
  left_out = [
    f'{count} CT series {why}: left out'
    for why, count in reasons.items()
    if count
  ]
  if not scans:
    raise errors.InputError(
      f'no series of this folder is annotated: {"; ".join(left_out)}. Give'
      ' --points and the folder of one series.'
    )
  return scans, left_out


def check_folder(out: pathlib.Path, *, many: bool) -> None:
  """Refuses a folder that holds the other kind of results.

  Args:
    out: the folder for the results.
    many: whether the results will be of many series or of one.

  Raises:
    errors.InputError: `out` holds results of one series, respectively many.
  """
  what, other = 'many series', out_folder.TABLE
  if many:
    what, other = 'one series', out_folder.INDEX
  if (out / other).exists():
    raise errors.InputError(
      f'{out} holds {other}, as results of {what} do: choose another --out.'
    )


def run(
  scans: Sequence[Scan],
  series_index: 'dicom_index.SeriesIndex',
  model: 'model_protocol.Model',
  out: pathlib.Path,
  *,
  options: Mapping[str, Any],
  seen: seen_lib.Seen | None,
  on_error: Callable[[str], None],
) -> list[ScanResult]:
  """Predicts one series after the other.

  Args:
    scans: from `plan`.
    series_index: from `series.read`.
    model: a model, or several as one.
    out: folder for the folders of the series.
    options: the command's options that change results: 'annotated', 'nifti',
      'symmetries'.
    seen: what the model was trained or selected with.
    on_error: called with a message on each series or point that failed.
  """
  from mtnet_jax.ct import results

  scan_results = []
  for scan in tqdm.tqdm(
    scans,
    'series',
    unit='series',
    leave=False,
    disable=None,  # shown on a terminal only
  ):
    folder = out / scan.name
    made_with = results.made_with(model, len(scan.series.slices), **options)
    predictions: dict[str, Any] | None
    try:
      predictions = _done_before(folder, made_with)
      if predictions:
        scan_results.append(ScanResult(scan, predictions, skipped=True))
        continue
      predictions = _predict(
        scan, series_index, model, folder, made_with, seen, on_error
      )
    except errors.InputError as error:
      predictions = None
      on_error(f'{scan.name}: {error}')
    scan_results.append(ScanResult(scan, predictions))
  return scan_results


def _done_before(folder, made_with):
  """The content of predictions.json if an earlier run's results can be kept."""
  if not folder.is_dir():
    return None
  with together.one_writer(folder):
    together.mend(folder, out_folder.INDEX)
  index = out_folder.read_index(folder)
  is_same = (
    index is not None
    and index.get('made_with') == made_with
    and index['mtnet_jax'] == mtnet_jax.__version__
    and all((folder / name).is_file() for name in index['files'])
  )
  return index if is_same and _has_rows(index) else None


def _has_rows(index):
  """Whether the table can be made of predictions.json, which may be damaged."""
  from mtnet_jax.ct import results

  try:
    with errors.of_wrong_values('predictions.json', way_out=''):
      rows.from_index(index)
      results.is_complete(index)
  except errors.InputError:
    return False
  return True


def _predict(scan, series_index, model, folder, made_with, seen, on_error):
  """Predicts a series, and returns the content of its predictions.json.

  Raises:
    errors.InputError: it cannot be predicted.
  """
  from mtnet_jax.ct import nifti
  from mtnet_jax.ct import results

  near = series_index.faults_near(scan.series)
  if not scan.series.slices:
    why = f', such as {near[0].path}: it {near[0].reason}' if near else ''
    raise errors.InputError(f'none of its files can be used{why}.')
  volume = dicom_volume.DicomVolume(scan.series, near)
  if made_with['nifti']:
    nifti.check(volume)
  wanted, faults = places.annotated(volume, made_with['annotated'])
  out_folder.check_series_folder(
    folder,
    [place.place_id for place in wanted],
    [one.path for one in scan.series.slices],
    segmentation=True,
    nifti=made_with['nifti'],
  )
  nodules, failed = search.find(wanted, volume, model, show_progress=False)
  faults += failed
  for name, error in faults:
    on_error(f'point {name}: {error}{error.detail}')
  if not nodules:
    raise errors.InputError(
      f'none of its {len(faults)} nodules could be predicted.'
    )
  files.make_folder(folder, '--out')
  with (
    together.one_writer(folder),
    together.together(
      folder, out_folder.INDEX, out_folder.series_files
    ) as staged,
  ):
    predictions = results.write(
      staged,
      nodules,
      faults,
      volume,
      model,
      [],
      with_nifti=made_with['nifti'],
      made_with=made_with,
      seen=seen,
    )
    # An older table and page do not match these results.
    if out_folder.summary_files(folder.parent):
      with files.writing(folder.parent, '--out'):
        for name in (out_folder.PAGE, out_folder.TABLE):
          (folder.parent / name).unlink(missing_ok=True)
  return predictions
