"""Writes the results of `predict`: masks, pictures, numbers and a page."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

import mtnet_jax
from mtnet_jax.ct import dicom_seg
from mtnet_jax.ct import follow
from mtnet_jax.ct import image_volume
from mtnet_jax.ct import nifti
from mtnet_jax.ct import out_folder
from mtnet_jax.ct import places
from mtnet_jax.ct import records as ct_records
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.reports import figures
from mtnet_jax.reports import nodule_page
from mtnet_jax.reports import overlays
from mtnet_jax.storage import files
from mtnet_jax.storage import seen as seen_lib
from mtnet_jax.system import errors

if TYPE_CHECKING:
  from mtnet_jax.ct import model_protocol


def write(
  out: pathlib.Path,
  nodules: Iterable[tuple[places.Place, follow.Nodule]],
  faults: Iterable[places.Fault],
  volume: ct_volume.Volume,
  model: 'model_protocol.Model',
  notes: Sequence[str],
  *,
  with_nifti: bool,
  made_with: Mapping[str, Any],
  seen: seen_lib.Seen | None = None,
) -> dict[str, Any]:
  """Writes all files of one CT.

  Args:
    out: the output folder.
    nodules: the places and what was found there; each nodule loses its views
      after it is drawn.
    faults: the points that failed.
    volume: the CT.
    model: a model, or several as one.
    notes: doubts about all of the results.
    with_nifti: whether masks of a DICOM series are also written as NIfTI.
    made_with: from `made_with`.
    seen: the patients that the model has seen; None if that is unknown, or the
      CT is not of the dataset.

  Returns:
    The content of predictions.json.
  """
  records: list[dict[str, Any]] = []
  masks: dict[str, dict[int, np.ndarray]] = {}
  shown: list[dict[str, Any]] = []
  trained = ', networks trained on SIMULATED CT' if model.simulated else ''
  for place, nodule in nodules:
    record = ct_records.make(
      place,
      nodule,
      volume,
      trained_on_simulated=model.simulated,
      seen=seen,
    )
    record['figure'] = out_folder.picture_name(place.place_id)
    picture = overlays.draw(
      [ct_records.picture_row(place, nodule, record)],
      title=place.place_id + trained,
      simulated=volume.simulated,
    )
    figures.save(picture, out / record['figure'])
    if nodule.pixels:
      masks[place.place_id] = nodule.pixels
      record['segment_number'] = len(masks)
    records.append(record)
    shown.append(
      nodule_page.draw(ct_records.slices(place, nodule, volume, record))
    )
    # The patches of a thousand points take hundreds of megabytes.
    nodule.views.clear()
    del nodule.view
  written, reason = _write_masks(
    out, masks, volume, model, with_nifti=with_nifti
  )
  notes = [*notes, *volume.notes_on_hu()]
  if reason:
    notes.append(f'no DICOM Segmentation: {reason}')
  if volume.left_out:
    notes.append(
      'images left out because they do not belong to the stack, such as'
      f' localizers: {len(volume.left_out)}'
    )
  index = {
    'mtnet_jax': mtnet_jax.__version__,
    'model': model.name,
    'made_with': made_with,
    'trained_on_simulated': model.simulated,
    'series_uid': volume.series_uid,
    'simulated_ct': volume.simulated,
    'slices_rows_columns': volume.shape,
    'pixel_spacing_mm': volume.pixel_spacing_mm,
    'slice_spacing_mm': volume.slice_spacing_mm,
    'files': [
      out_folder.PAGE,
      *written,
      *(record['figure'] for record in records),
    ],
    'notes': notes,
    'lacks_segmentation': bool(reason),
    'points': records,
    'failed': [{'id': name, 'reason': str(error)} for name, error in faults],
  }
  files.write_json(out / out_folder.INDEX, index)
  files.write_text(out / out_folder.PAGE, nodule_page.render(shown, index))
  return index


def made_with(
  model: 'model_protocol.Model', num_files: int, **options: Any
) -> dict[str, Any]:
  """What the results depend on; the same in two runs if they need not differ.

  Args:
    model: a model, or several as one.
    num_files: number of files of the CT.
    **options: the command's options that change results.
  """
  return {
    'model_fingerprint': model.fingerprint,
    'ct_files': num_files,
    **options,
  }


def table(index: Mapping[str, Any]) -> str:
  """Formats the points of predictions.json as text."""
  return ct_records.table(index['points'])


def is_complete(index: Mapping[str, Any]) -> bool:
  """Whether predictions.json reports no failure and no missing slice."""
  return not (
    index['failed']
    or index['lacks_segmentation']
    or any(record['status'] == 'incomplete' for record in index['points'])
  )


def _write_masks(out, masks, volume, model, *, with_nifti):
  """Writes the masks.

  Returns:
    The names of the files that were written; and why there is no DICOM
    Segmentation, or None.
  """
  written, reason = [], None
  if not masks:
    return written, reason
  if isinstance(volume, image_volume.ImageVolume):
    volume.write_labels(out / out_folder.NIFTI, masks)
    # There is no DICOM series that a Segmentation could belong to.
    return [out_folder.NIFTI], None
  try:
    data = dicom_seg.encode(
      volume,
      masks,
      model_name=model.name,
      simulated=volume.simulated or model.simulated,
    )
  except errors.InputError as error:
    # The other results are useful without it.
    reason = str(error)
  else:
    files.write_bytes(out / out_folder.SEGMENTATION, data)
    written.append(out_folder.SEGMENTATION)
  if with_nifti:
    nifti.write(out / out_folder.NIFTI, volume, masks)
    written.append(out_folder.NIFTI)
  return written, reason
