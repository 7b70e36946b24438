"""`predict --annotated` on a folder of many series of LIDC-IDRI.

Each series has a folder of its own, as `results` writes it, and one that was
done by the same model with the same options is not done again.
"""

from typing import NamedTuple

import tqdm

import mtnet_jax
from mtnet_jax.ct import dicom_volume
from mtnet_jax.ct import out_folder
from mtnet_jax.ct import places
from mtnet_jax.ct import rows
from mtnet_jax.ct import search
from mtnet_jax.storage import files
from mtnet_jax.storage import together
from mtnet_jax.system import errors


class Scan(NamedTuple):
  """A series to be done.

  Attributes:
    name: of its folder, as ids of its nodules begin: LIDC-IDRI-0001_12.
    patient_id: as in LIDC-IDRI.
    series: `tfds_lidc.ct.series.Series`.
    nodule_ids: of its nodules.
  """

  name: str
  patient_id: str
  series: object
  nodule_ids: list[str]


class Done(NamedTuple):
  """What became of a series.

  Attributes:
    scan: `Scan`.
    index: what its predictions.json holds; None where it failed.
    skipped: whether it had been done before.
  """

  scan: Scan
  index: dict | None
  skipped: bool = False


def plan(index, policy_name):
  """Which series have annotated nodules.

  Args:
    index: of `series.read`.
    policy_name: 'all' or 'paper'.

  Returns:
    A list of `Scan`, and notes on the series that are left out.

  Raises:
    errors.InputError: there is none.
  """
  from tfds_lidc.nodules import annotations
  from tfds_lidc.nodules import selection

  nodules = {}
  for nodule in selection.select(selection.POLICIES[policy_name]):
    nodules.setdefault(nodule.series_uid, []).append(nodule)
  scans = [
    Scan(
      name=found[0].nodule_id.rpartition('_')[0],
      patient_id=found[0].patient_id,
      series=index.series[uid],
      nodule_ids=[nodule.nodule_id for nodule in found],
    )
    for uid, found in nodules.items()
    if uid in index.series
  ]
  known = annotations.scans().keys() & index.series.keys()
  reasons = {
    'are not of LIDC-IDRI': len(index.series) - len(known),
    f'have no nodule of the selection {policy_name!r}': len(known) - len(scans),
  }
  left_out = [
    f'{count} CT series {why}: left out'
    for why, count in reasons.items()
    if count
  ]
  if not scans:
    raise errors.InputError(
      f'nothing is annotated in this folder: {"; ".join(left_out)}. Give'
      ' --points and the series of one.'
    )
  return scans, left_out


def check_folder(out, *, many):
  """Refuses a folder with the other kind of results.

  Args:
    out: `pathlib.Path` of it.
    many: whether those of many series are to be written, or those of one.

  Raises:
    errors.InputError: it holds the others.
  """
  what, other = 'many series', out_folder.TABLE
  if many:
    what, other = 'one series', out_folder.INDEX
  if (out / other).exists():
    raise errors.InputError(
      f'{out} holds {other}, as results of {what} do: choose another --out.'
    )


def run(scans, index, model, out, *, options, seen, on_error):
  """Does one series after the other.

  Args:
    scans: of `plan`.
    index: of `series.read`.
    model: `model.Model`, or several as one.
    out: `pathlib.Path` of the folder for theirs.
    options: of the command: 'annotated', 'nifti', ...
    seen: `seen.Seen`, what the model has.
    on_error: called with a line on a series or a point that failed.

  Returns:
    A list of `Done`.
  """
  from mtnet_jax.ct import results

  found = []
  # On a terminal only.
  for scan in tqdm.tqdm(
    scans, 'series', unit='series', leave=False, disable=None
  ):
    folder = out / scan.name
    made_with = results.made_with(model, len(scan.series.slices), **options)
    try:
      before = _done_before(folder, made_with)
      if before:
        found.append(Done(scan, before, skipped=True))
        continue
      predicted = _predict(
        scan, index, model, folder, made_with, seen, on_error
      )
    except errors.InputError as error:
      predicted = None
      on_error(f'{scan.name}: {error}')
    found.append(Done(scan, predicted))
  return found


def _done_before(folder, made_with):
  """What is in predictions.json, if it and its files are what would be made."""
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
  """Whether the table can be made of it: anyone may have written it."""
  from mtnet_jax.ct import results

  try:
    with errors.of_wrong_values('predictions.json', way_out=''):
      rows.of_index(index)
      results.is_complete(index)
  except errors.InputError:
    return False
  return True


def _predict(scan, index, model, folder, made_with, seen, on_error):
  """Does a series.

  Raises:
    errors.InputError: it cannot be done.
  """
  from mtnet_jax.ct import nifti
  from mtnet_jax.ct import results

  near = index.faults_near(scan.series)
  if not scan.series.slices:
    why = f', such as {near[0].path}: it {near[0].reason}' if near else ''
    raise errors.InputError(f'none of its files can be used{why}.')
  volume = dicom_volume.DicomVolume(scan.series, near)
  if made_with['nifti']:
    nifti.check(volume)
  wanted, faults = places.annotated(volume, made_with['annotated'])
  out_folder.check_one(
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
    raise errors.InputError(f'none of {len(faults)} nodules could be handled.')
  files.make_folder(folder, '--out')
  with (
    together.one_writer(folder),
    together.together(
      folder, out_folder.INDEX, out_folder.of_one_series
    ) as staged,
  ):
    predicted = results.write(
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
    # The table and the page of an earlier use are not of these results.
    if out_folder.of_many_series(folder.parent):
      with files.writing(folder.parent, '--out'):
        for name in (out_folder.PAGE, out_folder.TABLE):
          (folder.parent / name).unlink(missing_ok=True)
  return predicted
