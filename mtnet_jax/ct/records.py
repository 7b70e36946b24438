"""Describes a nodule: its record, its picture, its slices and its table row.

None of them contains text of the CT's header.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtnet_jax import metrics
from mtnet_jax.ct import components
from mtnet_jax.ct import follow
from mtnet_jax.ct import places
from mtnet_jax.ct import sizes
from mtnet_jax.ct import volume as ct_volume
from mtnet_jax.reports import nodule_page
from mtnet_jax.reports import overlays
from mtnet_jax.storage import seen as seen_lib


def make(
  place: places.Place,
  nodule: follow.Nodule,
  volume: ct_volume.Volume,
  *,
  trained_on_simulated: bool,
  seen: seen_lib.Seen | None = None,
) -> dict[str, Any]:
  """Makes the record of one nodule.

  Args:
    place: where the search started.
    nodule: what was found there.
    volume: the CT.
    trained_on_simulated: whether the networks were trained on SIMULATED CT.
    seen: the patients that the networks have seen; None if that is unknown, or
      the patient is not of the dataset.

  Returns:
    A dict for JSON with the fields of `fields.FIELDS`.
  """
  k, row, col = nodule.view.voxel
  record = {
    'id': place.place_id,
    'status': _status(nodule),
    'simulated_ct': volume.simulated,
    'trained_on_simulated': trained_on_simulated,
    'position_mm': _named('xyz', place.position_mm),
    'voxel': _named(('slice', 'row', 'col'), place.voxel),
    # The patch that malignancy and figure refer to.
    'patch_position_mm': _named('xyz', volume.to_mm((k, row, col))),
    'patch_voxel': {'slice': k, 'row': row, 'col': col},
    'malignancy_probability': _round(nodule.view.malignancy),
    'mask': {
      name: _round(value) if isinstance(value, float) else value
      for name, value in sizes.measure(nodule, volume, place.voxel[0]).items()
    },
    'notes': [*nodule.notes, *(note for note, _ in nodule.missing_notes())],
  }
  members = nodule.view.malignancy_members
  if members:
    rounded = [_round(member) for member in members]
    record['malignancy_probability_members'] = rounded
    record['malignancy_probability_range'] = [min(rounded), max(rounded)]
  record['notes'] += _seen_notes(place, seen)
  if place.truth is not None:
    record['readers'] = place.readers
    for name in ('coarse', 'fine'):
      record[f'{name}_dice'] = dice(getattr(nodule.view, name), place.truth)
  return record


def _seen_notes(place, seen):
  """A list with a note if the networks have seen the patient, or empty."""
  if seen is None or not place.patient_id:
    return []
  use = seen_lib.patients(seen).get(place.patient_id)
  if not use:
    return []
  was_used = 'trained on' if use == 'train' else 'selected with'
  if seen.by_fold:
    return [
      f'the model was {was_used} its patient (according to the folds, since the'
      ' model has no list)'
    ]
  own = seen_lib.nodules(seen).get(place.place_id) == use
  what = 'this nodule' if own else 'other nodules of its patient'
  return [f'the model was {was_used} {what}']


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
  """The Dice index of two (P, P) masks, as `evaluate` computes it."""
  counts = metrics.pixel_counts(mask[None], truth[None])
  return float(metrics.segmentation_from_counts(counts)['dice'][0])


def _status(nodule):
  if nodule.missing:
    return 'incomplete'
  return 'ok' if nodule.pixels else 'nothing found'


def _named(names, values):
  """A dict of rounded values by their names."""
  return {n: _round(v) for n, v in zip(names, values, strict=True)}


def _round(value):
  """A float rounded for JSON; whole numbers as int."""
  return round(float(value), 4) if isinstance(value, float) else int(value)


def picture_row(
  place: places.Place, nodule: follow.Nodule, record: dict[str, Any]
) -> overlays.Row:
  """The nodule's row in a figure; `record` is from `make`."""
  texts = [
    f'z={record["patch_position_mm"]["z"]:g} mm,'
    f' slice {record["patch_voxel"]["slice"]}',
    '',
    _sizes_text(record),
    f'malignancy {record["malignancy_probability"]:.3f}',
  ]
  if place.truth is not None:
    readers = place.readers
    texts.insert(
      1,
      f'{readers["diameter_mm"]:.1f} mm, rated'
      f' {readers["malignancy_rating_mean"]:.1f} of 5',
    )
    texts[2] = f'Dice {record["coarse_dice"]:.3f}'
    texts[3] = f'Dice {record["fine_dice"]:.3f}'
  members = nodule.view.malignancy_members
  if members:
    low, high = min(members), max(members)
    texts.append(f'{len(members)} outputs: {low:.3f} to {high:.3f}')
  return overlays.Row(
    label='',
    hu=nodule.view.hu,
    truth=place.truth,
    masks={'coarse': nodule.view.coarse, 'fine': nodule.view.fine},
    cam=nodule.view.cam,
    uncertainty=nodule.view.uncertainty,
    texts=tuple(texts),
  )


def _sizes_text(record):
  """The sizes, with the diameter's slice if it is not the patch's slice."""
  mask, k = record['mask'], record['voxel']['slice']
  text = sizes.diameter_text(mask)
  if mask['diameter_mm'] is None:
    return text
  if k != record['patch_voxel']['slice']:
    text = f'slice {k}: {text}'
  if mask['volume_mm3'] is None:
    return text
  return f'{text}, {sizes.volume_text(mask, "mm³")}'


def slices(
  place: places.Place,
  nodule: follow.Nodule,
  volume: ct_volume.Volume,
  record: dict[str, Any],
) -> nodule_page.Nodule:
  """The nodule for the page, slice by slice, the highest slice first.

  Args:
    place: as for `make`.
    nodule: as for `make`.
    volume: as for `make`.
    record: from `make`.
  """
  # `follow` keeps the map of the view that the nodule is judged by.
  assert nodule.view.cam is not None
  shown = {
    k: _slice(place, nodule, volume, view)
    for k, view in sorted(nodule.views.items(), reverse=True)
  }
  return nodule_page.Nodule(
    record=record,
    slices=list(shown.values()),
    judged=list(shown).index(nodule.view.voxel[0]),
    cam=nodule.view.cam,
    uncertainty=nodule.view.uncertainty,
  )


def _slice(place, nodule, volume, view):
  k = view.voxel[0]
  outlines, note = {}, 'not counted' if view.fine.any() else 'no mask'
  # The readers' mask is known for one patch only.
  if place.truth is not None and view is nodule.view:
    outlines['readers'] = place.truth
  outlines['coarse'] = view.coarse
  fine = np.zeros_like(view.fine)
  if k in nodule.pixels:
    fine = components.to_mask(view, nodule.pixels[k])
    note = _slice_note(k, nodule, volume)
    if k == place.voxel[0]:
      note += ", on the point's slice"
  outlines['left-out'] = view.fine & ~fine
  outlines['fine'] = fine
  title = f'slice {k}, z = {volume.z_mm[k]:g} mm'
  return nodule_page.Slice(title, view.hu, outlines, note)


def _slice_note(k, nodule, volume):
  if k in nodule.leaks:
    return 'no outline, not measured'
  diameter = sizes.diameter_mm(nodule.pixels[k], volume.pixel_spacing_mm)
  return f'{diameter:.1f} mm'


def table(records: Sequence[dict[str, Any]]) -> str:
  """Formats records as text, one line per record."""
  width = max(5, *(len(record['id']) for record in records))
  with_truth = 'fine_dice' in records[0]
  lines = [
    f'{"id":<{width}}  diameter      volume       malignancy'
    + ('  Dice coarse  fine' if with_truth else '')
  ]
  for record in records:
    mask = record['mask']
    diameter = '-' if mask['diameter_mm'] is None else sizes.diameter_text(mask)
    line = (
      f'{record["id"]:<{width}}  {diameter:>8}'
      f'  {sizes.volume_text(mask, "mm3"):>12}'
      f'  {record["malignancy_probability"]:.3f}     '
    )
    if with_truth:
      line += f'  {record["coarse_dice"]:.3f}        {record["fine_dice"]:.3f}'
    lines.append(line.rstrip())
  return '\n'.join(lines)
