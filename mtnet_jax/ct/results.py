"""The files that `predict` leaves: masks, pictures, numbers and a page."""

import mtnet_jax
from mtnet_jax.ct import dicom_seg
from mtnet_jax.ct import image_volume
from mtnet_jax.ct import nifti
from mtnet_jax.ct import out_folder
from mtnet_jax.ct import records as ct_records
from mtnet_jax.reports import figures
from mtnet_jax.reports import nodule_page
from mtnet_jax.reports import overlays
from mtnet_jax.storage import files
from mtnet_jax.system import errors


def write(
  out,
  nodules,
  faults,
  volume,
  model,
  notes,
  *,
  with_nifti,
  made_with,
  seen=None,
):
  """Writes every file.

  Args:
    out: `pathlib.Path` of the folder.
    nodules: (`places.Place`, `follow.Nodule`) pairs; the nodules lose their
      views as they are drawn.
    faults: (id, error) of the points that were not done.
    volume: `volume.Volume`.
    model: `model.Model`, or several as one.
    notes: on all of it, a clause each.
    with_nifti: whether masks of a DICOM series are written as NIfTI, too.
    made_with: of `made_with`.
    seen: `seen.Seen`, what the model has; None where that is no matter.

  Returns:
    What predictions.json holds.
  """
  records, masks, shown = [], {}, []
  trained = ', networks trained on SIMULATED CT' if model.simulated else ''
  for place, nodule in nodules:
    record = ct_records.make(
      place,
      nodule,
      volume,
      trained_on_simulated=model.simulated,
      seen=seen,
    )
    record['figure'] = out_folder.picture(place.place_id)
    picture = overlays.draw(
      [ct_records.picture(place, nodule, record)],
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
    # Patches of a thousand points are hundreds of megabytes.
    nodule.views.clear()
    nodule.view = None
  written, reason = _write_masks(
    out, masks, volume, model, with_nifti=with_nifti
  )
  notes = [*notes, *volume.doubts()]
  if reason:
    notes.append(f'no DICOM Segmentation: {reason}')
  if volume.left_out:
    notes.append(
      'images left out, which are no slices of the stack, such as localizers:'
      f' {len(volume.left_out)}'
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


def made_with(model, num_files, **options):
  """What results follow from, as far as it can differ from use to use.

  Args:
    model: `model.Model`, or several as one.
    num_files: of the CT.
    **options: of the command.
  """
  return {
    'model_fingerprint': model.fingerprint,
    'ct_files': num_files,
    **options,
  }


def table(index):
  """The points of predictions.json as text."""
  return ct_records.table(index['points'])


def is_complete(index):
  """Whether all was done, of what predictions.json holds."""
  return not (
    index['failed']
    or index['lacks_segmentation']
    or any(record['status'] == 'incomplete' for record in index['points'])
  )


def _write_masks(out, masks, volume, model, *, with_nifti):
  """Names of the files that were written, and why there is no Segmentation."""
  written, reason = [], None
  if not masks:
    return written, reason
  if isinstance(volume, image_volume.ImageVolume):
    volume.write_labels(out / out_folder.NIFTI, masks)
    # Of such a file nobody expects a Segmentation.
    return [out_folder.NIFTI], None
  try:
    data = dicom_seg.encode(
      volume,
      masks,
      model_name=model.name,
      simulated=volume.simulated or model.simulated,
    )
  except errors.InputError as error:
    # All else is worth having without it.
    reason = str(error)
  else:
    files.write_bytes(out / out_folder.SEGMENTATION, data)
    written.append(out_folder.SEGMENTATION)
  if with_nifti:
    nifti.write(out / out_folder.NIFTI, volume, masks)
    written.append(out_folder.NIFTI)
  return written, reason
